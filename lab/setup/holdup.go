package setup

import (
	"context"
	"fmt"
	"net/http"

	"switchback/replication/mirrormaker"
)

// HoldUp keeps the mirror from east to west from bringing any more of the workload's topics, without ending it: what is
// written from then on is stranded when east is lost.
func (l *Lab) HoldUp(ctx context.Context, w Workload) error {
	if l.options.Link != MirrorMaker {
		status, err := l.rest(ctx, http.MethodPost, Clusters[1], "/links/"+LinkName+"/mirrors:pause", map[string]any{"mirror_topic_names": w.TopicNames()})
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("the link's API says %d", status)
		}
		return err
	}
	source, _, _ := l.mirrorFlow(Clusters[0], Clusters[1]).Names()
	c, err := mirrormaker.NewClient(mirrormaker.Workers{Connect: []string{l.ConnectURL(Clusters[1])}, Login: l.ConnectLogin(), TLS: l.certs.trust})
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Pause(ctx, source)
}
