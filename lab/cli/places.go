package cli

import (
	"os"
	"strings"

	"switchback/lab/setup"
)

// placesOf are the variables of `lab env`, which `lab up` prints as well. No secret is among them.
func placesOf(l *setup.Lab) []place {
	places := []place{
		{"LAB_DIR", l.Dir()},
		{"TEMPORAL_ADDRESS", l.TemporalAddress()}, {"TEMPORAL_UI", l.TemporalUI()}, {"TEMPORAL_TASK_QUEUE", setup.TaskQueue},
		{"CONSUL_HTTP_ADDR", l.ConsulURL()}, {"CONSUL_HTTP_TOKEN_FILE", l.ManagerTokenFile()},
		{"VAULT_ADDR", l.VaultURL()},
	}
	if l.Options().Link == setup.ClusterLinking {
		places = append(places, place{"LINK_REST", l.LinkURL()})
	}
	if ca := l.CA(); ca != "" {
		places = append(places, place{"LAB_CA", ca}, place{"CONSUL_CACERT", ca}, place{"VAULT_CACERT", ca})
	}
	for _, cluster := range setup.Clusters {
		places = append(places, place{"KAFKA_" + upper(cluster), join(l.Bootstrap(cluster))}, place{"KAFKA_" + upper(cluster) + "_ID", l.ClusterID(cluster)})
		if l.Options().Link == setup.MirrorMaker {
			places = append(places, place{"CONNECT_" + upper(cluster), l.ConnectURL(cluster)})
		}
	}
	for _, w := range l.Options().Workloads {
		places = append(places, place{"RUNBOOK_" + upper(w.Name), l.RunbookFile(w.Name)})
	}
	return append(places, place{"LEDGERS", l.LedgerDir()}, place{"REPORTS", l.ReportsDir()}, place{"PATH", strings.Join(append(l.ProgramDirs(), os.Getenv("PATH")), ":")})
}
