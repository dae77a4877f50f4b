package replication

// GroupLag is how many records a group has still to read up to the high watermarks, over the partitions it committed.
// A partition whose end is unknown counts as one record: not nothing.
func GroupLag(committed map[Partition]int64, ends []Ends) int64 {
	var lag int64
	for _, e := range ends {
		at, ok := committed[e.Partition]
		switch {
		case !ok || at == Unknown:
		case e.HighWatermark == Unknown:
			lag++
		case at < e.HighWatermark:
			lag += e.HighWatermark - at
		}
	}
	return lag
}
