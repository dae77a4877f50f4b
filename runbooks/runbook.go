// Package runbooks reads the file that describes a workload: its clusters, link, topics, groups, clients, keys and
// budgets. Parameters only; the order of steps is Go code in package workflows.
//
// Start reading at Runbook; Load turns a file into one, or says where it is wrong and what would be right. Nothing here
// opens a connection or knows the time.
package runbooks

// APIVersion and Kind are what the first two lines of a runbook must say.
const (
	APIVersion = "switchback/v1"
	Kind       = "Runbook"
)

// Runbook is one workload and all that is needed to move it. The zero value is not usable: Load applies the defaults.
// The tag jsonschema says what a key needs (required) and may say (enum): the strict loader and the JSON Schema both
// read it there.
type Runbook struct {
	APIVersion  string             `yaml:"apiVersion" json:"apiVersion" jsonschema:"required,enum=switchback/v1"`
	Kind        string             `yaml:"kind" json:"kind" jsonschema:"required,enum=Runbook"`
	Metadata    Metadata           `yaml:"metadata" json:"metadata" jsonschema:"required"`
	Objectives  Objectives         `yaml:"objectives" json:"objectives" jsonschema:"required"`
	Clusters    map[string]Cluster `yaml:"clusters" json:"clusters" jsonschema:"required"`
	Home        string             `yaml:"home" json:"home" jsonschema:"required"`
	Links       []Link             `yaml:"links" json:"links" jsonschema:"required"`
	Topics      Patterns           `yaml:"topics" json:"topics" jsonschema:"required"`
	Groups      Groups             `yaml:"groups" json:"groups"`
	Discovery   []Discovery        `yaml:"discovery" json:"discovery" jsonschema:"required"`
	Credentials Credentials        `yaml:"credentials" json:"credentials" jsonschema:"required"`
	Clients     []Client           `yaml:"clients" json:"clients" jsonschema:"required"`
	Gates       Gates              `yaml:"gates" json:"gates"`
	Budgets     Budgets            `yaml:"budgets" json:"budgets"`
	Recovery    *Recovery          `yaml:"recovery,omitempty" json:"recovery,omitempty"`
	Hooks       []Hook             `yaml:"hooks,omitempty" json:"hooks,omitempty"`
	Drills      []Drill            `yaml:"drills,omitempty" json:"drills,omitempty"`
}

// Metadata names a runbook. Name is the id under which runs, locks and reports know it.
type Metadata struct {
	Name        string `yaml:"name" json:"name" jsonschema:"required"`
	Owner       string `yaml:"owner" json:"owner" jsonschema:"required"`
	Description string `yaml:"description,omitempty" json:"description,omitempty"`
}

// Objectives are what a run is measured against.
type Objectives struct {
	RTO Duration `yaml:"rto" json:"rto" jsonschema:"required"`
	RPO RPO      `yaml:"rpo" json:"rpo"`
}

// RPO bounds the loss that the owner accepts, in time and in records. A planned run loses nothing whatever it says.
type RPO struct {
	Time    Duration `yaml:"time" json:"time"`
	Records int64    `yaml:"records" json:"records"`
}

// Cluster is how Switchback reaches one Kafka cluster.
type Cluster struct {
	Bootstrap   []string  `yaml:"bootstrap" json:"bootstrap" jsonschema:"required"`
	Security    Security  `yaml:"security" json:"security" jsonschema:"required"`
	Credentials SecretRef `yaml:"credentials" json:"credentials"`
	// ID is the cluster id that is expected to answer; empty means that whatever answers first is recorded.
	ID string `yaml:"id,omitempty" json:"id,omitempty"`
}

// Security is written to Consul for the clients and used by Switchback itself, with Kafka's own words.
type Security struct {
	Protocol  string `yaml:"protocol" json:"protocol" jsonschema:"required,enum=SASL_SSL,enum=SASL_PLAINTEXT,enum=SSL,enum=PLAINTEXT"`     // SASL_SSL, SASL_PLAINTEXT, SSL, PLAINTEXT
	Mechanism string `yaml:"mechanism,omitempty" json:"mechanism,omitempty" jsonschema:"enum=SCRAM-SHA-512,enum=SCRAM-SHA-256,enum=PLAIN"` // SCRAM-SHA-512, SCRAM-SHA-256, PLAIN
	CA        string `yaml:"ca,omitempty" json:"ca,omitempty"`                                                                             // a PEM file on the worker
}

// SecretRef says where in Vault a secret is, never what it is. The secret's keys are username and password
// (and token for Consul).
type SecretRef struct {
	Vault string `yaml:"vault" json:"vault" jsonschema:"required"` // <mount>/<path> of a KV v2 secret, such as kafka/east/switchback
}

// Link is the replication from one cluster to another. Exactly one backend is set.
type Link struct {
	From           string          `yaml:"from" json:"from" jsonschema:"required"`
	To             string          `yaml:"to" json:"to" jsonschema:"required"`
	ClusterLinking *ClusterLinking `yaml:"clusterLinking,omitempty" json:"clusterLinking,omitempty"`
	MirrorMaker    *MirrorMaker    `yaml:"mirrormaker,omitempty" json:"mirrormaker,omitempty"`
}

// ClusterLinking reaches a cluster link through REST v3 of the cluster that hosts it, normally the target.
type ClusterLinking struct {
	REST        string    `yaml:"rest" json:"rest" jsonschema:"required"`                                      // https://host:port
	PathPrefix  string    `yaml:"pathPrefix,omitempty" json:"pathPrefix" jsonschema:"enum=/kafka/v3,enum=/v3"` // /kafka/v3 (default) or /v3
	Cluster     string    `yaml:"cluster" json:"cluster" jsonschema:"required"`                                // the id in the URL: lkc-… or a Kafka cluster id
	Link        string    `yaml:"link" json:"link" jsonschema:"required"`                                      // link name
	Credentials SecretRef `yaml:"credentials" json:"credentials" jsonschema:"required"`                        // HTTP basic: username, password
	CA          string    `yaml:"ca,omitempty" json:"ca,omitempty"`                                            // a PEM file on the worker
	Principal   string    `yaml:"principal,omitempty" json:"principal"`                                        // the link's principal on the source, such as User:link
	AcceptTxns  bool      `yaml:"acceptTransactions,omitempty" json:"acceptTransactions,omitempty"`            // P19: named acceptance
}

// MirrorMaker reaches MirrorMaker 2 on Kafka Connect, through the REST interface of any of its workers.
type MirrorMaker struct {
	Connect     []string          `yaml:"connect" json:"connect" jsonschema:"required"`       // https://host:port of each worker
	Credentials SecretRef         `yaml:"credentials,omitempty" json:"credentials,omitempty"` // HTTP basic: username, password
	CA          string            `yaml:"ca,omitempty" json:"ca,omitempty"`                   // PEM files on the worker
	Cert        string            `yaml:"cert,omitempty" json:"cert,omitempty"`               // a client certificate, where Connect asks for one
	Key         string            `yaml:"key,omitempty" json:"key,omitempty"`
	Source      string            `yaml:"source" json:"source" jsonschema:"required"` // names of connectors
	Checkpoint  string            `yaml:"checkpoint,omitempty" json:"checkpoint,omitempty"`
	Heartbeat   string            `yaml:"heartbeat,omitempty" json:"heartbeat,omitempty"`
	Alias       map[string]string `yaml:"alias" json:"alias" jsonschema:"required"`
	Policy      string            `yaml:"policy" json:"policy" jsonschema:"required,enum=identity,enum=default"` // identity or default
	Principals  Principals        `yaml:"principals" json:"principals" jsonschema:"required"`
}

// Principals are those that MirrorMaker 2 writes with on the target (P10).
type Principals struct {
	Data  string `yaml:"data" json:"data" jsonschema:"required"`
	Admin string `yaml:"admin" json:"admin" jsonschema:"required"`
	// Credentials let preflight log in as both and prove that ACLs hold them. Without, a seal is not trusted alone: a run
	// waits until the connectors have stopped.
	Credentials *PrincipalCredentials `yaml:"credentials,omitempty" json:"credentials,omitempty"`
}

// PrincipalCredentials are where the secrets of MirrorMaker 2's principals on the target are.
type PrincipalCredentials struct {
	Data  SecretRef `yaml:"data" json:"data" jsonschema:"required"`
	Admin SecretRef `yaml:"admin" json:"admin" jsonschema:"required"`
}

// Patterns select names: a literal, or a glob with * and ? over the whole name. Exclude wins.
type Patterns struct {
	Include []string `yaml:"include" json:"include" jsonschema:"required"`
	Exclude []string `yaml:"exclude,omitempty" json:"exclude,omitempty"`
}

// Groups select consumer groups, and say what to do for a partition that a group never committed (P24).
type Groups struct {
	Include []string `yaml:"include" json:"include" jsonschema:"required"`
	Exclude []string `yaml:"exclude,omitempty" json:"exclude,omitempty"`
	// WithoutCommit is earliest (default: nothing can be missed) or latest.
	WithoutCommit string `yaml:"withoutCommit,omitempty" json:"withoutCommit" jsonschema:"enum=earliest,enum=latest"`
}

// Discovery is one place where clients look up their cluster. The first with Required set is the one that counts (P40).
type Discovery struct {
	Consul   Consul `yaml:"consul" json:"consul" jsonschema:"required"`
	Required bool   `yaml:"required,omitempty" json:"required"`
}

// Consul is one agent or server and the prefix of the runbook's keys, without leading or trailing slash.
type Consul struct {
	Address    string    `yaml:"address" json:"address" jsonschema:"required"`
	Token      SecretRef `yaml:"token" json:"token"`
	Prefix     string    `yaml:"prefix" json:"prefix" jsonschema:"required"`
	Datacenter string    `yaml:"datacenter,omitempty" json:"datacenter,omitempty"`
	CA         string    `yaml:"ca,omitempty" json:"ca,omitempty"`
}

// Credentials say where clients' secrets are.
type Credentials struct {
	Vault ClientSecrets    `yaml:"vault" json:"vault" jsonschema:"required"`
	Copy  *CredentialsCopy `yaml:"copy,omitempty" json:"copy,omitempty"`
}

// ClientSecrets is where a client's credentials for a cluster are: {cluster} and {client} are filled in.
type ClientSecrets struct {
	Mount string `yaml:"mount" json:"mount" jsonschema:"required"`
	Path  string `yaml:"path" json:"path" jsonschema:"required"`
}

// CredentialsCopy writes the target's secret over one fixed path, for clients that read only that.
type CredentialsCopy struct {
	To string `yaml:"to" json:"to" jsonschema:"required"` // {client} is filled in
}

// Roles of a client.
const (
	RoleProducer = "producer"
	RoleConsumer = "consumer"
	RoleBoth     = "both"
)

// Client is an application that a run stops and starts. Exactly one of Supervised, Kubernetes, Paged is set.
type Client struct {
	Name       string               `yaml:"name" json:"name" jsonschema:"required"`
	Role       string               `yaml:"role" json:"role" jsonschema:"required,enum=producer,enum=consumer,enum=both"`
	Principal  string               `yaml:"principal,omitempty" json:"principal,omitempty"` // User:<name> by default
	Groups     []string             `yaml:"groups,omitempty" json:"groups,omitempty"`
	Supervised *Supervised          `yaml:"supervised,omitempty" json:"supervised,omitempty"`
	Kubernetes *Kubernetes          `yaml:"kubernetes,omitempty" json:"kubernetes,omitempty"`
	Paged      *Paged               `yaml:"paged,omitempty" json:"paged,omitempty"`
	Placement  map[string]Placement `yaml:"placement,omitempty" json:"placement,omitempty"`
	Tolerates  Tolerates            `yaml:"tolerates,omitempty" json:"tolerates"`
	// WhenKilled decides when an instance had to be killed to stop it (P36): go-on (default) or roll-back.
	WhenKilled string `yaml:"whenKilled,omitempty" json:"whenKilled" jsonschema:"enum=go-on,enum=roll-back"`
}

// Supervised clients run under `supervisor`, which follows Consul.
type Supervised struct {
	Instances int `yaml:"instances" json:"instances" jsonschema:"required"`
}

// Kubernetes clients are workloads that are scaled.
type Kubernetes struct {
	Namespace  string `yaml:"namespace" json:"namespace" jsonschema:"required"`
	Deployment string `yaml:"deployment" json:"deployment" jsonschema:"required"`
}

// Paged clients are stopped and started by people.
type Paged struct {
	Team string `yaml:"team" json:"team" jsonschema:"required"`
	Via  string `yaml:"via" json:"via" jsonschema:"required"`
}

// Placement says where a Kubernetes client runs for a cluster.
type Placement struct {
	Context  string `yaml:"context,omitempty" json:"context,omitempty"`
	Replicas int    `yaml:"replicas,omitempty" json:"replicas,omitempty"`
}

// Tolerates says what a client can live with.
type Tolerates struct {
	Loss       bool `yaml:"loss" json:"loss"`
	Duplicates bool `yaml:"duplicates" json:"duplicates"`
}

// Gates are the approvals that runs need.
type Gates struct {
	Planned   Gate     `yaml:"planned" json:"planned"`
	Unplanned Gate     `yaml:"unplanned" json:"unplanned"`
	Recovery  Gate     `yaml:"recovery" json:"recovery"`
	Approvers []string `yaml:"approvers,omitempty" json:"approvers,omitempty"`
	AntiFlap  Duration `yaml:"antiFlap,omitempty" json:"antiFlap"` // a second switch this soon after the last one must be overridden
}

// Gate asks for approvals of so many different people within Expiry.
type Gate struct {
	Approvals int      `yaml:"approvals" json:"approvals"`
	Expiry    Duration `yaml:"expiry,omitempty" json:"expiry"`
}

// Budgets bound the waits of a run. A step's budget is also cut by what is left of the objective.
type Budgets struct {
	Drain        Duration `yaml:"drain" json:"drain"`
	CatchUp      Duration `yaml:"catchUp" json:"catchUp"` // 0: consumers do not catch up first
	StopClients  Duration `yaml:"stopClients" json:"stopClients"`
	StartClients Duration `yaml:"startClients" json:"startClients"`
	Promote      Duration `yaml:"promote" json:"promote"`
	Verify       Duration `yaml:"verify" json:"verify"`
}

// Recovery says what happens to stranded records, per topic pattern.
type Recovery struct {
	Default string            `yaml:"default" json:"default" jsonschema:"required,enum=append,enum=divert,enum=rewind,enum=report"` // append, divert, rewind, report
	Topics  map[string]string `yaml:"topics,omitempty" json:"topics,omitempty"`
	// ReadFor is how long groups may read on the old cluster what was rewound there; 0 lets nobody in.
	ReadFor Duration `yaml:"readFor,omitempty" json:"readFor,omitempty"`
}

// Hook starts a workflow of the user's after a step.
type Hook struct {
	After     string `yaml:"after" json:"after" jsonschema:"required"`
	Workflow  string `yaml:"workflow" json:"workflow" jsonschema:"required"`
	TaskQueue string `yaml:"taskQueue" json:"taskQueue" jsonschema:"required"`
}

// Drill is an exercise on a schedule.
type Drill struct {
	Kind  string   `yaml:"kind" json:"kind" jsonschema:"required,enum=readiness,enum=canary,enum=roundtrip"` // readiness, canary, roundtrip
	Every Duration `yaml:"every,omitempty" json:"every,omitempty"`
	Cron  string   `yaml:"cron,omitempty" json:"cron,omitempty"`
	Soak  Duration `yaml:"soak,omitempty" json:"soak,omitempty"`
}
