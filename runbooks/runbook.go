// Package runbooks reads the file that describes a workload: its clusters, link, topics, groups, clients, keys and
// budgets. Parameters only; the order of steps is Go code in package workflows.
//
// Start reading at Runbook; Load turns a file into one, or says where it is wrong and what would be right. Nothing here
// opens a connection or knows the time.
package runbooks

import "time"

// APIVersion and Kind are what the first two lines of a runbook must say.
const (
	APIVersion = "switchback/v1"
	Kind       = "Runbook"
)

// Runbook is one workload and all that is needed to move it. The zero value is not usable: Load applies the defaults.
type Runbook struct {
	APIVersion  string             `yaml:"apiVersion" json:"apiVersion"`
	Kind        string             `yaml:"kind" json:"kind"`
	Metadata    Metadata           `yaml:"metadata" json:"metadata"`
	Objectives  Objectives         `yaml:"objectives" json:"objectives"`
	Clusters    map[string]Cluster `yaml:"clusters" json:"clusters"`
	Home        string             `yaml:"home" json:"home"`
	Links       []Link             `yaml:"links" json:"links"`
	Topics      Patterns           `yaml:"topics" json:"topics"`
	Groups      Groups             `yaml:"groups" json:"groups"`
	Discovery   []Discovery        `yaml:"discovery" json:"discovery"`
	Credentials Credentials        `yaml:"credentials" json:"credentials"`
	Clients     []Client           `yaml:"clients" json:"clients"`
	Gates       Gates              `yaml:"gates" json:"gates"`
	Budgets     Budgets            `yaml:"budgets" json:"budgets"`
	Recovery    *Recovery          `yaml:"recovery,omitempty" json:"recovery,omitempty"`
	Hooks       []Hook             `yaml:"hooks,omitempty" json:"hooks,omitempty"`
	Drills      []Drill            `yaml:"drills,omitempty" json:"drills,omitempty"`
}

// Metadata names a runbook. Name is the id under which runs, locks and reports know it.
type Metadata struct {
	Name        string `yaml:"name" json:"name"`
	Owner       string `yaml:"owner" json:"owner"`
	Description string `yaml:"description,omitempty" json:"description,omitempty"`
}

// Objectives are what a run is measured against.
type Objectives struct {
	RTO Duration `yaml:"rto" json:"rto"`
	RPO RPO      `yaml:"rpo" json:"rpo"`
}

// RPO bounds the loss that the owner accepts, in time and in records. A planned run loses nothing whatever it says.
type RPO struct {
	Time    Duration `yaml:"time" json:"time"`
	Records int64    `yaml:"records" json:"records"`
}

// Cluster is how Switchback reaches one Kafka cluster.
type Cluster struct {
	Bootstrap   []string  `yaml:"bootstrap" json:"bootstrap"`
	Security    Security  `yaml:"security" json:"security"`
	Credentials SecretRef `yaml:"credentials" json:"credentials"`
	// ID is the cluster id that is expected to answer; empty means that whatever answers first is recorded.
	ID string `yaml:"id,omitempty" json:"id,omitempty"`
}

// Security is written to Consul for the clients and used by Switchback itself, with Kafka's own words.
type Security struct {
	Protocol  string `yaml:"protocol" json:"protocol"`                       // SASL_SSL, SASL_PLAINTEXT, SSL, PLAINTEXT
	Mechanism string `yaml:"mechanism,omitempty" json:"mechanism,omitempty"` // SCRAM-SHA-512, SCRAM-SHA-256, PLAIN
	CA        string `yaml:"ca,omitempty" json:"ca,omitempty"`               // a PEM file on the worker
}

// SecretRef says where in Vault a secret is, never what it is. The secret's keys are username and password
// (and token for Consul).
type SecretRef struct {
	Vault string `yaml:"vault" json:"vault"` // <mount>/<path> of a KV v2 secret, such as kafka/east/switchback
}

// Link is the replication from one cluster to another. Exactly one backend is set.
type Link struct {
	From           string          `yaml:"from" json:"from"`
	To             string          `yaml:"to" json:"to"`
	ClusterLinking *ClusterLinking `yaml:"clusterLinking,omitempty" json:"clusterLinking,omitempty"`
	MirrorMaker    *MirrorMaker    `yaml:"mirrormaker,omitempty" json:"mirrormaker,omitempty"`
}

// ClusterLinking reaches a cluster link through REST v3 of the cluster that hosts it, normally the target.
type ClusterLinking struct {
	REST        string    `yaml:"rest" json:"rest"`                                                 // https://host:port
	PathPrefix  string    `yaml:"pathPrefix,omitempty" json:"pathPrefix"`                           // /kafka/v3 (default) or /v3
	Cluster     string    `yaml:"cluster" json:"cluster"`                                           // the id in the URL: lkc-… or a Kafka cluster id
	Link        string    `yaml:"link" json:"link"`                                                 // link name
	Credentials SecretRef `yaml:"credentials" json:"credentials"`                                   // HTTP basic: username, password
	CA          string    `yaml:"ca,omitempty" json:"ca,omitempty"`                                 // a PEM file on the worker
	Principal   string    `yaml:"principal,omitempty" json:"principal"`                             // the link's principal on the source, such as User:link
	AcceptTxns  bool      `yaml:"acceptTransactions,omitempty" json:"acceptTransactions,omitempty"` // P19: named acceptance
}

// MirrorMaker reaches MirrorMaker 2 on Kafka Connect.
type MirrorMaker struct {
	Connect    []string          `yaml:"connect" json:"connect"`
	Source     string            `yaml:"source" json:"source"`
	Checkpoint string            `yaml:"checkpoint,omitempty" json:"checkpoint,omitempty"`
	Heartbeat  string            `yaml:"heartbeat,omitempty" json:"heartbeat,omitempty"`
	Alias      map[string]string `yaml:"alias" json:"alias"`
	Policy     string            `yaml:"policy" json:"policy"` // identity or default
	Principals Principals        `yaml:"principals" json:"principals"`
}

// Principals are those that MirrorMaker 2 writes with on the target (P10).
type Principals struct {
	Data  string `yaml:"data" json:"data"`
	Admin string `yaml:"admin" json:"admin"`
}

// Patterns select names: a literal, or a glob with * and ? over the whole name. Exclude wins.
type Patterns struct {
	Include []string `yaml:"include" json:"include"`
	Exclude []string `yaml:"exclude,omitempty" json:"exclude,omitempty"`
}

// Groups select consumer groups, and say what to do for a partition that a group never committed (P24).
type Groups struct {
	Include []string `yaml:"include" json:"include"`
	Exclude []string `yaml:"exclude,omitempty" json:"exclude,omitempty"`
	// WithoutCommit is earliest (default: nothing can be missed) or latest.
	WithoutCommit string `yaml:"withoutCommit,omitempty" json:"withoutCommit"`
}

// Discovery is one place where clients look up their cluster. The first with Required set is the one that counts (P40).
type Discovery struct {
	Consul   Consul `yaml:"consul" json:"consul"`
	Required bool   `yaml:"required,omitempty" json:"required"`
}

// Consul is one agent or server and the prefix of the runbook's keys, without leading or trailing slash.
type Consul struct {
	Address    string    `yaml:"address" json:"address"`
	Token      SecretRef `yaml:"token" json:"token"`
	Prefix     string    `yaml:"prefix" json:"prefix"`
	Datacenter string    `yaml:"datacenter,omitempty" json:"datacenter,omitempty"`
	CA         string    `yaml:"ca,omitempty" json:"ca,omitempty"`
}

// Credentials say where clients' secrets are.
type Credentials struct {
	Vault ClientSecrets    `yaml:"vault" json:"vault"`
	Copy  *CredentialsCopy `yaml:"copy,omitempty" json:"copy,omitempty"`
}

// ClientSecrets is where a client's credentials for a cluster are: {cluster} and {client} are filled in.
type ClientSecrets struct {
	Mount string `yaml:"mount" json:"mount"`
	Path  string `yaml:"path" json:"path"`
}

// CredentialsCopy writes the target's secret over one fixed path, for clients that read only that.
type CredentialsCopy struct {
	To string `yaml:"to" json:"to"` // {client} is filled in
}

// Roles of a client.
const (
	RoleProducer = "producer"
	RoleConsumer = "consumer"
	RoleBoth     = "both"
)

// Client is an application that a run stops and starts. Exactly one of Supervised, Kubernetes, Paged is set.
type Client struct {
	Name       string               `yaml:"name" json:"name"`
	Role       string               `yaml:"role" json:"role"`
	Principal  string               `yaml:"principal,omitempty" json:"principal,omitempty"` // User:<name> by default
	Groups     []string             `yaml:"groups,omitempty" json:"groups,omitempty"`
	Supervised *Supervised          `yaml:"supervised,omitempty" json:"supervised,omitempty"`
	Kubernetes *Kubernetes          `yaml:"kubernetes,omitempty" json:"kubernetes,omitempty"`
	Paged      *Paged               `yaml:"paged,omitempty" json:"paged,omitempty"`
	Placement  map[string]Placement `yaml:"placement,omitempty" json:"placement,omitempty"`
	Tolerates  Tolerates            `yaml:"tolerates,omitempty" json:"tolerates"`
	// WhenKilled decides when an instance had to be killed to stop it (P36): go-on (default) or roll-back.
	WhenKilled string `yaml:"whenKilled,omitempty" json:"whenKilled"`
}

// Supervised clients run under `supervisor`, which follows Consul.
type Supervised struct {
	Instances int `yaml:"instances" json:"instances"`
}

// Kubernetes clients are workloads that are scaled.
type Kubernetes struct {
	Namespace  string `yaml:"namespace" json:"namespace"`
	Deployment string `yaml:"deployment" json:"deployment"`
}

// Paged clients are stopped and started by people.
type Paged struct {
	Team string `yaml:"team" json:"team"`
	Via  string `yaml:"via" json:"via"`
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
	Approvers []string `yaml:"approvers,omitempty" json:"approvers,omitempty"`
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
	Default string            `yaml:"default" json:"default"` // append, divert, rewind, report
	Topics  map[string]string `yaml:"topics,omitempty" json:"topics,omitempty"`
}

// Hook starts a workflow of the user's after a step.
type Hook struct {
	After     string `yaml:"after" json:"after"`
	Workflow  string `yaml:"workflow" json:"workflow"`
	TaskQueue string `yaml:"taskQueue" json:"taskQueue"`
}

// Drill is an exercise on a schedule.
type Drill struct {
	Kind  string   `yaml:"kind" json:"kind"` // readiness, canary, roundtrip
	Every Duration `yaml:"every,omitempty" json:"every,omitempty"`
	Cron  string   `yaml:"cron,omitempty" json:"cron,omitempty"`
	Soak  Duration `yaml:"soak,omitempty" json:"soak,omitempty"`
}

// Duration is a time.Duration that reads and prints as 5m or 30s, in YAML and in JSON.
type Duration time.Duration

// D is the duration as Go's own type.
func (d Duration) D() time.Duration { return time.Duration(d) }
