package rotator

import (
	"github.com/robfig/cron/v3"

	"github.com/rekeyd/rekeyd/rotator/schedule"
)

var _ cron.Schedule = schedule.Schedule{}
