// Package schedule says when a cron expression runs, on the days when clocks change too.
package schedule
