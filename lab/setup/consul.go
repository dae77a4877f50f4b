package setup

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"switchback/activities"
	"switchback/internal/secret"
	"switchback/lab/servers"
)

// workerPart is the worker's name among the parts that have tokens and roles; the others are the clients'.
const workerPart = "worker"

func (l *Lab) parts() []string {
	parts := []string{workerPart}
	for _, c := range l.options.clients() {
		parts = append(parts, c.Name)
	}
	return parts
}

// everyConsul are the names of the lab's Consuls, the one that counts first.
func (l *Lab) everyConsul() []string { return l.with(everywhereConsul, regionalConsul) }

func (l *Lab) consulConfig(name string) servers.ConsulConfig {
	inner, listen := l.state.Ports[name+"-inner"], ""
	if l.state.Hosts[name] != "" { // others reach it by the name of its host
		listen = "0.0.0.0"
	}
	return servers.ConsulConfig{
		Host: l.state.Hosts[name], Listen: listen, Data: l.state.Data[name],
		Name: name, Program: l.programs.Consul, Dir: l.path(name), Log: l.log(name), Port: l.state.Ports[name][0],
		Inner: [2]int{inner[0], inner[1]}, Manager: l.secrets.token("consul/manager"),
		CAFile: l.certs.ca, CertFile: l.certs.cert, KeyFile: l.certs.key,
	}
}

func (l *Lab) consulToken(part string) secret.Value { return l.secrets.token("consul/" + part) }

// Consul is Consul's API with the token that may do everything, which the lab alone has.
func (l *Lab) Consul() (*api.Client, error) { return l.consulConfig(everywhereConsul).Client() }

// provisionConsul fills the Consul that counts.
func (l *Lab) provisionConsul(ctx context.Context) error { return l.fillConsul(ctx, everywhereConsul) }

// fillConsul makes a policy and a token for each part, and the keys of each workload where there are none yet.
func (l *Lab) fillConsul(ctx context.Context, name string) error {
	consul, err := l.consulConfig(name).Client()
	if err != nil {
		return fmt.Errorf("provision Consul: %w", err)
	}
	for part, rules := range l.consulRules() {
		if err := l.provisionToken(ctx, consul, part, rules); err != nil {
			return fmt.Errorf("provision Consul: token of %s: %w", part, err)
		}
	}
	for _, w := range l.options.Workloads {
		if err := l.provisionKeys(ctx, consul, w); err != nil {
			return fmt.Errorf("provision Consul: keys of %s: %w", w.Name, err)
		}
	}
	return nil
}

// Prefix of a workload's keys in Consul.
func Prefix(workload string) string { return "kafka/" + workload }

// consulRules says what each part may do, and nothing else is allowed.
func (l *Lab) consulRules() map[string]string {
	rules := map[string]string{}
	var worker strings.Builder
	worker.WriteString("session_prefix \"\" { policy = \"read\" }\nnode_prefix \"\" { policy = \"read\" }\n")
	for _, w := range l.options.Workloads {
		fmt.Fprintf(&worker, "key_prefix %q { policy = \"write\" }\n", Prefix(w.Name)+"/")
		for _, c := range w.Clients {
			// An instance registers on the condition that no epoch of its client's own has appeared (P22, P35), and Consul
			// wants write for a check that a key does not exist.
			rule := fmt.Sprintf("session_prefix \"\" { policy = \"write\" }\nkey_prefix %q { policy = \"read\" }\n", Prefix(w.Name)+"/")
			for _, entry := range append([]string{""}, readings()...) {
				own := Prefix(w.Name) + entry + "/clients/" + c.Name
				rule += fmt.Sprintf("key_prefix %q { policy = \"write\" }\nkey %q { policy = \"write\" }\n", own+"/instances/", own+"/epoch")
			}
			rules[c.Name] = rule
		}
	}
	rules[workerPart] = worker.String()
	return rules
}

// readings are where, under a prefix, clients find a cluster that was left while they may read there.
func readings() (entries []string) {
	for _, cluster := range Clusters {
		entries = append(entries, "/"+activities.ReadingPrefix+"/"+cluster)
	}
	return entries
}

func (l *Lab) provisionToken(ctx context.Context, consul *api.Client, part, rules string) error {
	read, write := new(api.QueryOptions).WithContext(ctx), new(api.WriteOptions).WithContext(ctx)
	token := l.consulToken(part).Reveal()
	policy := api.ACLPolicy{Name: "switchback-" + part, Rules: rules}
	there, _, err := consul.ACL().PolicyReadByName(policy.Name, read)
	if err != nil {
		return err
	}
	if there == nil {
		_, _, err = consul.ACL().PolicyCreate(&policy, write)
	} else {
		policy.ID = there.ID
		_, _, err = consul.ACL().PolicyUpdate(&policy, write)
	}
	if err != nil {
		return err
	}
	asItself := *read
	asItself.Token = token
	if _, _, err := consul.ACL().TokenReadSelf(&asItself); err != nil {
		made := api.ACLToken{SecretID: token, Description: part, Policies: []*api.ACLTokenPolicyLink{{Name: policy.Name}}}
		if _, _, err := consul.ACL().TokenCreate(&made, write); err != nil {
			return err
		}
	}
	return nil
}

// provisionKeys writes the first epoch of a workload, in one transaction that fails when there is one already.
func (l *Lab) provisionKeys(ctx context.Context, consul *api.Client, w Workload) error {
	home := Clusters[0]
	keys := map[string]string{
		"cluster": home, "bootstrap.servers": strings.Join(l.state.bootstrap(home), ","),
		"security.protocol": l.certs.protocol(), "sasl.mechanism": "SCRAM-SHA-512",
		"credentials": mount + "/" + home + "/{client}", "topic.prefix": "", "switchedBy": "lab",
	}
	for _, c := range w.Clients {
		keys["clients/"+c.Name+"/desired"] = "run"
	}
	key := func(name string) string { return Prefix(w.Name) + "/" + name }
	operations := api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVCheckNotExists, Key: key("epoch")}},
		{KV: &api.KVTxnOp{Verb: api.KVSet, Key: key("epoch"), Value: []byte(strconv.Itoa(1))}},
	}
	for name, value := range keys {
		operations = append(operations, &api.TxnOp{KV: &api.KVTxnOp{Verb: api.KVSet, Key: key(name), Value: []byte(value)}})
	}
	there, _, err := consul.KV().Get(key("epoch"), new(api.QueryOptions).WithContext(ctx))
	if err != nil || there != nil {
		return err
	}
	done, answer, _, err := consul.Txn().Txn(operations, new(api.QueryOptions).WithContext(ctx))
	if err == nil && !done {
		err = fmt.Errorf("the transaction was refused: %v", answer.Errors)
	}
	return err
}
