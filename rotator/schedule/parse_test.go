package schedule

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestParseSchedule(t *testing.T) {
	for _, tc := range []struct{ expr, timezone, text, zone string }{
		{"0 3 * * 1", "", "0 3 * * 1", "UTC"},
		{"  0\t3 * *  mon-fri \n", "Europe/Oslo", "0 3 * * mon-fri", "Europe/Oslo"},
		{"TZ=Europe/Oslo 0 3 * * 1", "", "0 3 * * 1", "Europe/Oslo"},
		{"CRON_TZ=Europe/Oslo @daily", "Europe/Oslo", "@daily", "Europe/Oslo"},
		{"CRON_TZ=America/New_York @every 36h", "", "@every 36h", "America/New_York"},
		{"@hourly", "UTC", "@hourly", "UTC"},
		{"@midnight", "", "@midnight", "UTC"},
		{"@weekly", "", "@weekly", "UTC"},
		{"@monthly", "", "@monthly", "UTC"},
		{"@yearly", "", "@yearly", "UTC"},
		{"@annually", "", "@annually", "UTC"},
		{"0,15 1-5/2 ? JAN,7 *", "Asia/Kathmandu", "0,15 1-5/2 ? JAN,7 *", "Asia/Kathmandu"},
		{"0 0 29 2 *", "", "0 0 29 2 *", "UTC"},
	} {
		s, err := Parse(tc.expr, tc.timezone)
		if err != nil {
			t.Errorf("%q in %q: %v", tc.expr, tc.timezone, err)
			continue
		}
		if s.String() != tc.text || s.Zone() != tc.zone || s.Location().String() != tc.zone {
			t.Errorf("%q in %q is %q in %s, want %q in %s", tc.expr, tc.timezone, s, s.Zone(), tc.text, tc.zone)
		}
	}
}

func TestParseScheduleEvery(t *testing.T) {
	if every, ok := mustSchedule(t, "@every 1h30m", "").Every(); !ok || every != 90*time.Minute {
		t.Errorf("@every 1h30m is %s, %t", every, ok)
	}
	if every, ok := mustSchedule(t, "@daily", "").Every(); ok || every != 0 {
		t.Errorf("@daily has an interval: %s, %t", every, ok)
	}
}

func TestScheduleParserSharesZones(t *testing.T) {
	var p Parser
	a, errA := p.Parse("0 3 * * 1", "Europe/Oslo")
	b, errB := p.Parse("TZ=Europe/Oslo  0 3 * * 1", "")
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	if a != b {
		t.Errorf("%v in %s and %v in %s from one parser are not equal", a, a.Zone(), b, b.Zone())
	}
}

func TestParseScheduleRefuses(t *testing.T) {
	const (
		words = "@hourly, @daily, @weekly, @monthly, @yearly, or an interval such as @every 36h"
		any3  = "5 fields such as 0 3 * * 1, a word such as @daily, or an interval such as @every 36h"
		five  = "write 5: minute hour day-of-month month day-of-week"
		never = "never fires: there is no such day in any year; write a day of the month that exists"
		zone  = "write an IANA name such as Europe/Oslo, or UTC"
		forms = ", alone or as in *, */2, 1-5 or 1,3"
		dow   = "write 0 to 6 or sun to sat (Sunday is 0)" + forms
		month = "write 1 to 12 or jan to dec" + forms
	)
	for _, tc := range []struct{ expr, timezone, want string }{
		{"", "", `schedule "" is empty; write ` + any3},
		{" \t ", "", `schedule " \t " is empty; write ` + any3},
		{"0 0 0 3 * *", "", `schedule "0 0 0 3 * *" has 6 fields; ` + five},
		{"0 3 * *", "", `schedule "0 3 * *" has 4 fields; ` + five},
		{"daily", "", `schedule "daily" has 1 field; ` + five},
		{"tz=UTC 0 3 * * *", "", `schedule "tz=UTC 0 3 * * *" has 6 fields; ` + five},
		{"60 3 * * *", "", `schedule "60 3 * * *" has the minute "60"; write 0 to 59` + forms},
		{"-5 3 * * *", "", `schedule "-5 3 * * *" has the minute "-5"; write 0 to 59` + forms},
		{"0 24 * * *", "", `schedule "0 24 * * *" has the hour "24"; write 0 to 23` + forms},
		{"0 5-3 * * *", "", `schedule "0 5-3 * * *" has the hour "5-3"; write 0 to 23` + forms},
		{"0 */0 * * *", "", `schedule "0 */0 * * *" has the hour "*/0"; write 0 to 23` + forms},
		{"0 *-3 * * *", "", `schedule "0 *-3 * * *" has the hour "*-3"; write 0 to 23` + forms},
		{"0 +3 * * *", "", `schedule "0 +3 * * *" has the hour "+3"; write 0 to 23` + forms},
		{"0 3h * * *", "", `schedule "0 3h * * *" has the hour "3h"; write 0 to 23` + forms},
		{"0 , * * *", "", `schedule "0 , * * *" has the hour ","; write 0 to 23` + forms},
		{"0 1,,2 * * *", "", `schedule "0 1,,2 * * *" has the hour "1,,2"; write 0 to 23` + forms},
		{"0 3 0 * *", "", `schedule "0 3 0 * *" has the day-of-month "0"; write 1 to 31` + forms},
		{"0 3 L * *", "", `schedule "0 3 L * *" has the day-of-month "L"; write 1 to 31` + forms},
		{"0 3 * 13 *", "", `schedule "0 3 * 13 *" has the month "13"; ` + month},
		{"0 3 * march *", "", `schedule "0 3 * march *" has the month "march"; ` + month},
		{"0 3 * * 7", "", `schedule "0 3 * * 7" has the day-of-week "7"; ` + dow},
		{"0 3 * * fri-mon", "", `schedule "0 3 * * fri-mon" has the day-of-week "fri-mon"; ` + dow},
		{"0 3 * * 1#2", "", `schedule "0 3 * * 1#2" has the day-of-week "1#2"; ` + dow},
		{"0 3 * * \x00", "", `schedule "0 3 * * \x00" has the day-of-week "\x00"; ` + dow},
		{"0 99999999999999999999 * * *", "", `schedule "0 99999999999999999999 * * *" has the hour "99999999999999999999"; write 0 to 23` + forms},
		{"0 0 30 2 *", "", `schedule "0 0 30 2 *" ` + never},
		{"0 0 31 2,4,6,9,11 *", "", `schedule "0 0 31 2,4,6,9,11 *" ` + never},
		{"@reboot", "", `schedule "@reboot" would run at every start, which says nothing about when keys change; write ` + words},
		{"@Daily", "", `schedule "@Daily" has the unknown word "@Daily"; write ` + words},
		{"@", "", `schedule "@" has the unknown word "@"; write ` + words},
		{"@daily 3", "", `schedule "@daily 3" has more than @daily; write @daily alone`},
		{"@every", "", `schedule "@every" needs one duration after @every; write for example @every 36h`},
		{"@every 1h 30m", "", `schedule "@every 1h 30m" needs one duration after @every; write for example @every 36h`},
		{"@every 1d", "", `schedule "@every 1d" has the duration "1d", which cannot be read; write hours, minutes and seconds, as in 36h or 1h30m`},
		{"@every 36", "", `schedule "@every 36" has the duration "36", which cannot be read; write hours, minutes and seconds, as in 36h or 1h30m`},
		{"@every 0s", "", `schedule "@every 0s" has the interval "0s"; write at least 1s, as in @every 36h`},
		{"@every -1h", "", `schedule "@every -1h" has the interval "-1h"; write at least 1s, as in @every 36h`},
		{"@every 999ms", "", `schedule "@every 999ms" has the interval "999ms"; write at least 1s, as in @every 36h`},
		{"@every 1.5s", "", `schedule "@every 1.5s" has the interval "1.5s"; write whole seconds, as in @every 36h`},
		{"@every 100000h", "", `schedule "@every 100000h" has the interval "100000h"; write at most 87600h, which is ten years`},
		{"TZ=UTC", "", `schedule "TZ=UTC" has nothing after "TZ=UTC"; write ` + any3},
		{"CRON_TZ=UTC ", "", `schedule "CRON_TZ=UTC " has nothing after "CRON_TZ=UTC"; write ` + any3},
		{"TZ=", "", `schedule "TZ=" has the prefix TZ= without a zone; write TZ=Europe/Oslo, or leave it out`},
		{"CRON_TZ= * *", "", `schedule "CRON_TZ= * *" has the prefix CRON_TZ= without a zone; write CRON_TZ=Europe/Oslo, or leave it out`},
		{"TZ= 0 3 * * *", "Europe/Oslo", `schedule "TZ= 0 3 * * *" has the prefix TZ= without a zone; write TZ=Europe/Oslo, or leave it out`},
		{"TZ=UTC TZ=UTC 0 3 * * *", "", `schedule "TZ=UTC TZ=UTC 0 3 * * *" has two time zone prefixes; write one`},
		{"TZ=UTC CRON_TZ=", "", `schedule "TZ=UTC CRON_TZ=" has two time zone prefixes; write one`},
		{"TZ=UTC 0 3 * * *", "Europe/Oslo", `schedule "TZ=UTC 0 3 * * *" has the prefix "TZ=UTC", but timezone is "Europe/Oslo"; write one of them`},
		{"TZ=Mars/Base 0 3 * * *", "", `schedule "TZ=Mars/Base 0 3 * * *" names no known time zone; ` + zone},
		{"TZ=Local 0 3 * * *", "", `schedule "TZ=Local 0 3 * * *" means another zone on each machine; ` + zone},
		{"0 3 * * *", "Europe/Osl", `timezone "Europe/Osl" names no known time zone; ` + zone},
		{"0 3 * * *", "Local", `timezone "Local" means another zone on each machine; ` + zone},
		{"0 3 * * *", "localtime", `timezone "localtime" means another zone on each machine; ` + zone},
		{"0 3 * * *", " UTC", `timezone " UTC" names no known time zone; ` + zone},
		{"0 3 * * *", "../../etc/passwd", `timezone "../../etc/passwd" names no known time zone; ` + zone},
		{"0 3 * * *", "Europe/Oslo\x00", `timezone "Europe/Oslo\x00" names no known time zone; ` + zone},
		{"0 3 * * *", strings.Repeat("z", 1<<20), `timezone "` + strings.Repeat("z", 60) + `…" names no known time zone; ` + zone},
		{strings.Repeat("1,", 5<<20), "", `schedule "` + strings.Repeat("1,", 30) + `…" is 10485760 bytes long; write at most 512`},
		{"0 0 0 3 * *", "Europe/Osl", `schedule "0 0 0 3 * *" has 6 fields; ` + five + "\n" + `timezone "Europe/Osl" names no known time zone; ` + zone},
	} {
		s, err := Parse(tc.expr, tc.timezone)
		var fault *Error
		if !errors.As(err, &fault) {
			t.Errorf("%q in %q: error is %v, want a Error", tc.expr, tc.timezone, err)
			continue
		}
		if err.Error() != tc.want {
			t.Errorf("%.70q in %.70q:\n got %s\nwant %s", tc.expr, tc.timezone, err, tc.want)
		}
		if s != (Schedule{}) {
			t.Errorf("%.70q in %.70q: refused, but not the zero value", tc.expr, tc.timezone)
		}
	}
}

// Whatever parses runs for ever, forwards, in steps that Gaps knows.
func FuzzParseSchedule(f *testing.F) {
	for _, seed := range [][2]string{
		{"0 3 * * 1", "Europe/Oslo"}, {"TZ=UTC", ""}, {"TZ=", ""}, {"CRON_TZ= * *", "UTC"}, {"@every 36h", ""},
		{"@hourly", "Australia/Lord_Howe"}, {"CRON_TZ=Africa/Cairo 30 0 * * 5", ""}, {"0 0 30 2 *", ""}, {"0 0 29 2 *", "Pacific/Apia"},
	} {
		f.Add(seed[0], seed[1], int64(1_774_746_000))
	}
	f.Fuzz(func(t *testing.T, expr, timezone string, unix int64) {
		s, err := Parse(expr, timezone)
		if err != nil {
			if len(err.Error()) > 1000 || strings.Count(err.Error(), "\n") > 1 {
				t.Errorf("%d bytes of error: %.1000s", len(err.Error()), err)
			}
			return
		}
		const tenThousandYears = 10_000 * 365 * daySeconds
		at := time.Unix(unix%tenThousandYears, 0)
		for range 50 {
			next := s.Next(at)
			if !next.After(at) || next.Sub(at) > maxEvery {
				t.Fatalf("%s %q: %s is followed by %s", s.Zone(), s, at, next)
			}
			at = next
		}
		if again, err := Parse(s.String(), s.Zone()); err != nil || again.String() != s.String() {
			t.Errorf("%q in %s is read back as %q: %v", s, s.Zone(), again, err)
		}
	})
}
