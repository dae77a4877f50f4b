package workflows

// RefuseLimits is tested by itself, because the test environment starts no run with cron or retry.
var RefuseLimits = refuseLimits
