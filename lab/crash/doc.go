// Package crash kills what a failover runs on, at every line where that could matter, and looks how the run ends:
// a crash of any process, anywhere, must not change it.
//
// The tests carry the build tag crash, because they take minutes: `make test-crash` runs them. Start reading at scenario,
// which is one crash, and at play, which lets it happen; bench_test.go has the labs, state_test.go what must stand at the
// end. worker_test.go kills the worker at each kill point of a planned run, disaster_test.go at those of unplanned ones,
// several workloads at a time whose cluster is dead. home_test.go kills it in recoveries, on every way home and in Protect, at one step
// after the other of the same run; journey_test.go has how. servers_test.go kills everything that the worker talks to, and
// history_test.go records the histories that workflows/ replays. table_test.go prints what a worker's death cost.
package crash
