package apache

import (
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Grants are what Kafka Connect and MirrorMaker 2 need on a cluster, whichever side of the mirror it is, and nothing else:
// found by running 4.3.1 with fewer and reading what the brokers refused. READ, WRITE and ALTER allow DESCRIBE as well, and
// ALTER_CONFIGS allows DESCRIBE_CONFIGS.
//
// One refusal stands in no log of the brokers: without WRITE on the offset syncs' topic the source connector stays RUNNING and
// copies records, its producer of offset syncs tries again some thousand times a second (100 MB of log a minute), and no group
// is ever translated.
func Grants() []*kadm.ACLBuilder {
	allow := func(user string, operations ...kadm.ACLOperation) *kadm.ACLBuilder {
		return kadm.NewACLs().Allow("User:" + user).AllowHosts("*").Operations(operations...)
	}
	literal, prefixed := kmsg.ACLResourcePatternTypeLiteral, kmsg.ACLResourcePatternTypePrefixed
	return []*kadm.ACLBuilder{
		// The worker's group and its three topics; the transactional id with exactly-once source support alone.
		allow(ConnectUser, kadm.OpCreate, kadm.OpRead, kadm.OpWrite, kadm.OpDescribeConfigs).Topics("connect-").ResourcePatternType(prefixed),
		allow(ConnectUser, kadm.OpRead).Groups("connect-").ResourcePatternType(prefixed),
		allow(ConnectUser, kadm.OpWrite).TransactionalIDs("connect-cluster-connect-").ResourcePatternType(prefixed),

		// On the target: records, checkpoints, heartbeats. With exactly-once source support also the worker's offsets, which go
		// into the same transaction and are read back, and a transactional id for each task.
		allow(DataUser, kadm.OpWrite).Topics("*").ResourcePatternType(literal),
		allow(DataUser, kadm.OpRead, kadm.OpCreate, kadm.OpDescribeConfigs).Topics("connect-").ResourcePatternType(prefixed),
		allow(DataUser, kadm.OpWrite).TransactionalIDs("connect-").ResourcePatternType(prefixed),

		// On the source READ of topics and groups, DESCRIBE_CONFIGS, and DESCRIBE of the cluster for its ACLs. On the target
		// CREATE, ALTER (more partitions) and ALTER_CONFIGS of topics, ALTER of the cluster for its ACLs, READ of checkpoints,
		// of groups and of their topics for group offset sync, WRITE of offset syncs.
		allow(AdminUser, kadm.OpRead, kadm.OpCreate, kadm.OpAlter, kadm.OpDescribeConfigs, kadm.OpAlterConfigs).Topics("*").ResourcePatternType(literal),
		allow(AdminUser, kadm.OpWrite).Topics("mm2-offset-syncs.").ResourcePatternType(prefixed),
		allow(AdminUser, kadm.OpRead).Groups("*").ResourcePatternType(literal),
		allow(AdminUser, kadm.OpDescribe, kadm.OpAlter).Clusters().ResourcePatternType(literal),
	}
}
