package setup

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/twmb/franz-go/pkg/kadm"

	"switchback/lab/servers"
	"switchback/lab/tree"
)

// StartEmpty starts a cluster whose brokers were killed on new disks: with its ports, its users and their grants, and without a
// topic, an offset or a fence. another gives it a cluster id of its own, as a cluster has that was set up anew.
func (l *Lab) StartEmpty(ctx context.Context, cluster string, another bool) error {
	if another {
		l.state.ClusterIDs[cluster] = random(16)
		if err := servers.WriteJSON(l.path("lab.json"), l.state); err != nil {
			return fmt.Errorf("empty %s: %w", cluster, err)
		}
	}
	if err := os.RemoveAll(l.path("kafka", cluster)); err != nil {
		return fmt.Errorf("empty %s: %w", cluster, err)
	}
	specs, err := l.brokers(ctx, cluster)
	if err != nil {
		return fmt.Errorf("empty %s: %w", cluster, err)
	}
	for _, spec := range specs {
		err = errors.Join(err, l.tree.Change(spec.Name, func(s *tree.Spec) { *s = spec }), l.tree.StartAgain(ctx, spec.Name))
	}
	if err == nil && l.options.Kafka == Apache {
		err = l.setUsers(ctx, cluster)
	}
	if err == nil {
		err = l.grant(ctx, cluster)
	}
	if err == nil && l.options.Link == MirrorMaker { // what it kept there is gone as well
		connect := ConnectProcess(cluster)
		err = errors.Join(l.Kill(connect), l.StartAgain(ctx, connect))
	}
	if err != nil {
		return fmt.Errorf("start %s empty: %w", cluster, err)
	}
	return nil
}

// brokers of a cluster are ready to start; what has no data is set up.
func (l *Lab) brokers(ctx context.Context, cluster string) ([]tree.Spec, error) {
	if l.options.Kafka == Apache {
		return l.apacheCluster(cluster).Brokers(ctx, l.runtime)
	}
	spec, err := l.serve("kafka", cluster, l.kafkaConfig(cluster), servers.Answers(l.ControlURL(cluster)+"/health"))
	return []tree.Spec{spec}, err
}

// grant makes the users' grants.
func (l *Lab) grant(ctx context.Context, cluster string) error {
	client, err := l.Kafka(cluster, superuser)
	if err != nil {
		return err
	}
	defer client.Close()
	for _, b := range l.grants(cluster) {
		if _, err := kadm.NewClient(client).CreateACLs(ctx, b); err != nil {
			return fmt.Errorf("create ACLs: %w", err)
		}
	}
	return nil
}
