"""Generated from proto/scheduler/store/etcdpb: etcd's messages."""
