package apache

import (
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Grants are what Kafka Connect and MirrorMaker 2 need on a cluster, whichever side of the mirror it is.
func Grants() []*kadm.ACLBuilder {
	allow := func(user string, operations ...kadm.ACLOperation) *kadm.ACLBuilder {
		return kadm.NewACLs().Allow("User:" + user).AllowHosts("*").Operations(operations...)
	}
	literal, prefixed := kmsg.ACLResourcePatternTypeLiteral, kmsg.ACLResourcePatternTypePrefixed
	return []*kadm.ACLBuilder{
		// The worker: its group, its three topics.
		allow(ConnectUser, kadm.OpCreate, kadm.OpRead, kadm.OpWrite, kadm.OpDescribe, kadm.OpDescribeConfigs).Topics("connect-").ResourcePatternType(prefixed),
		allow(ConnectUser, kadm.OpRead, kadm.OpDescribe).Groups("connect-").ResourcePatternType(prefixed),
		// What connectors write.
		allow(DataUser, kadm.OpWrite, kadm.OpDescribe).Topics("*").ResourcePatternType(literal),
		// What connectors read and make.
		allow(AdminUser, kadm.OpRead, kadm.OpWrite, kadm.OpCreate, kadm.OpAlter, kadm.OpDescribe, kadm.OpDescribeConfigs, kadm.OpAlterConfigs).Topics("*").ResourcePatternType(literal),
		allow(AdminUser, kadm.OpRead, kadm.OpDescribe).Groups("*").ResourcePatternType(literal),
		allow(AdminUser, kadm.OpDescribe, kadm.OpAlter).Clusters().ResourcePatternType(literal),
	}
}
