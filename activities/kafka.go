package activities

import (
	"context"
	"time"

	"switchback/replication"
	"switchback/runbooks"
)

// Topics of Switchback's own, on both clusters, excluded from every mirror (P20).
const (
	MarksTopic     = "switchback.marks"
	PositionsTopic = "switchback.positions"
	CanaryTopic    = "switchback.canary"
)

// Clusters opens Kafka clusters. What it returns may be shared; Close gives it back.
type Clusters interface {
	// Open logs in as Switchback, with the credentials that the runbook names for the cluster.
	Open(ctx context.Context, site Site) (Kafka, error)
	// OpenAs logs in with a client's own credentials, from the Vault path given.
	OpenAs(ctx context.Context, site Site, vaultPath string) (Kafka, error)
	// SuperUser logs in with the credentials at the Vault path given and finds out whether ACLs hold that login, by a topic
	// that is there for it and is made first if mayMake. principal is who it logs in as.
	SuperUser(ctx context.Context, site Site, vaultPath string, mayMake bool) (principal string, super bool, err error)
}

// Kafka is one cluster. Every method asks the live brokers, obeys its context and returns errors of package fault.
type Kafka interface {
	// Principal is who is logged in, such as User:switchback.
	Principal() string
	Identity(ctx context.Context) (replication.Identity, error)
	Topics(ctx context.Context, match func(string) bool) ([]replication.Topic, error)
	TopicConfigs(ctx context.Context, topics []string) (map[string]map[string]string, error)
	Ends(ctx context.Context, topics []string) ([]replication.Ends, error)
	Writers(ctx context.Context, partitions []replication.Partition) ([]replication.Writer, error)
	EndTransactions(ctx context.Context, transactionalIDs []string) error
	// AbortTransactions ends open transactions that a mirror brought along, which no coordinator of this cluster knows (P19).
	AbortTransactions(ctx context.Context, open []replication.Writer) error
	// CreateTopic makes a topic and waits until its leaders are known. fault.ErrConflict when it exists.
	CreateTopic(ctx context.Context, t replication.NewTopic) error
	// TopicOverrides are the configs that are set on topics themselves.
	TopicOverrides(ctx context.Context, topics []string) (map[string]map[string]string, error)
	// AlterTopicConfigs changes the named configs and no other; nil takes one away.
	AlterTopicConfigs(ctx context.Context, changes map[string]map[string]*string) error
	// Newest is the largest timestamp in each partition that holds records.
	Newest(ctx context.Context, topics []string) (map[replication.Partition]time.Time, error)
	// OffsetsAt is the first offset of each partition whose record is at least as young as when.
	OffsetsAt(ctx context.Context, topics []string, when time.Time) (map[replication.Partition]int64, error)
	// RecordSize is the size of an average record of each topic, in bytes as it lies in the log.
	RecordSize(ctx context.Context, ends []replication.Ends) (map[string]int64, error)

	ACLs(ctx context.Context) ([]replication.ACL, error)
	CreateACLs(ctx context.Context, acls []replication.ACL) error
	DeleteACLs(ctx context.Context, acls []replication.ACL) error
	// ACLsOnEveryBroker asks each live broker whether all of want stand there (present), or none (absent).
	ACLsOnEveryBroker(ctx context.Context, want []replication.ACL, present bool) ([]replication.Outcome, error)

	Groups(ctx context.Context, match func(string) bool) ([]replication.Group, error)
	Committed(ctx context.Context, group string) (map[replication.Partition]int64, error)
	Commit(ctx context.Context, group string, offsets map[replication.Partition]int64) error
	RemoveMembers(ctx context.Context, group string, members []replication.Member) error

	Canary(ctx context.Context, topic string) (replication.Canary, error)
	// Grants asks the brokers what this login itself may do; a topic that does not exist is named in a *replication.Partial.
	Grants(ctx context.Context, topics, groups []string) (replication.Grants, error)
	// Records opens one of Switchback's own compacted topics.
	Records(topic string) Records
	Close()
}

// Records is a compacted topic read as a map.
type Records interface {
	Put(ctx context.Context, entries map[string][]byte) error
	// Load reads everything with the prefix up to the end seen at the call, or fails; never a part.
	Load(ctx context.Context, prefix string) (map[string][]byte, error)
}

// Links opens replication backends.
type Links interface {
	Open(ctx context.Context, route Route, from, to Kafka) (replication.Link, error)
}

// Consuls opens discovery entries.
type Consuls interface {
	Open(ctx context.Context, entry runbooks.Discovery) (Entry, error)
}

// Secrets uses credentials without showing them.
type Secrets interface {
	// Copy writes the secret at from over the one at to, checked against its version; false if they are equal already.
	Copy(ctx context.Context, from, to string) (bool, error)
}
