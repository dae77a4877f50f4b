// Package bench measures how long a failover keeps clients waiting, and what it costs in reads, history and memory. The
// figures of one run are in docs/performance.md; `make bench` repeats it. Nothing here asserts a time: a benchmark fails
// only when what it measured was not correct.
//
// Start reading at window_test.go, then size_test.go; apache_test.go is the same on Apache Kafka and MirrorMaker 2, beside
// operator_test.go, which does by hand what is documented there. All of it needs the build tag bench.
package bench
