package devices

import "time"

// rtcSecondsPerDay bounds how far ahead an alarm can be: it names no date.
const rtcSecondsPerDay = 24 * 60 * 60

// rtcAnyMask marks an alarm register as matching every value, when both of
// its bits are set.
const rtcAnyMask = 0xC0

// guestTime is the time as the guest has set it.
func (r *rtcState) guestTime(now time.Time) time.Time {
	return time.Unix(now.Unix()+r.offset, 0).UTC()
}

// latch puts the time into the registers, in the guest's notation.
func (r *rtcState) latch(now time.Time) {
	t := r.guestTime(now)
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	r.ram[rtcSeconds] = r.encode(second)
	r.ram[rtcMinutes] = r.encode(minute)
	r.ram[rtcHours] = r.encodeHour(hour)
	r.ram[rtcWeekday] = r.encode(int(t.Weekday()) + 1)
	r.ram[rtcDay] = r.encode(day)
	r.ram[rtcMonth] = r.encode(int(month))
	r.ram[rtcYear] = r.encode(year % 100)
	r.ram[rtcCentury] = r.encode(year / 100)
}

// setTime makes the registers' time the guest's. The day of the week follows
// from the date. A date that is none is taken as the calendar counts on: the
// 31st of February is a day in March.
func (r *rtcState) setTime(now time.Time) {
	t := time.Date(
		r.decode(r.ram[rtcCentury])*100+r.decode(r.ram[rtcYear]),
		time.Month(r.decode(r.ram[rtcMonth])),
		r.decode(r.ram[rtcDay]),
		r.decodeHour(r.ram[rtcHours]),
		r.decode(r.ram[rtcMinutes]),
		r.decode(r.ram[rtcSeconds]),
		0, time.UTC)
	r.offset = t.Unix() - now.Unix()
	r.seen = t.Unix()
}

func (r *rtcState) encode(v int) byte {
	if r.ram[rtcB]&rtcBBinary != 0 {
		return byte(v)
	}
	return byte(v/10%10<<4 | v%10)
}

func (r *rtcState) decode(b byte) int {
	if r.ram[rtcB]&rtcBBinary != 0 {
		return int(b)
	}
	return int(b>>4)*10 + int(b&0x0F)
}

// encodeHour marks the afternoon by bit 7 when the guest wants 12 hours.
func (r *rtcState) encodeHour(h int) byte {
	if r.ram[rtcB]&rtcB24Hours != 0 {
		return r.encode(h)
	}
	var pm byte
	if h >= 12 {
		pm = 0x80
	}
	return pm | r.encode((h+11)%12+1)
}

func (r *rtcState) decodeHour(b byte) int {
	if r.ram[rtcB]&rtcB24Hours != 0 {
		return r.decode(b)
	}
	h := r.decode(b&0x7F) % 12
	if b&0x80 != 0 {
		h += 12
	}
	return h
}

// catchUp sets the flags of what has happened since it was last asked. They
// are set whether or not they interrupt: a guest may poll them.
func (r *rtcState) catchUp(now time.Time) {
	if r.ram[rtcB]&rtcBSet != 0 {
		return
	}
	t := now.Unix() + r.offset
	if t > r.seen {
		r.flags |= rtcCUpdate
		if at, ok := r.nextAlarm(r.seen); ok && at <= t {
			r.flags |= rtcCAlarm
		}
	}
	// Not only forward: the host's clock may have been set back.
	r.seen = t
}

// raise sets IRQF if a flag is set whose interrupt is enabled, and reports
// whether it was clear.
func (r *rtcState) raise() bool {
	if r.flags&rtcCPending != 0 || r.flags&r.ram[rtcB]&rtcEnableMask == 0 {
		return false
	}
	r.flags |= rtcCPending
	return true
}

// next gives the guest's time of the next event that would interrupt.
func (r *rtcState) next() (at int64, ok bool) {
	b := r.ram[rtcB]
	switch {
	case b&rtcBSet != 0 || r.flags&rtcCPending != 0:
		// The line is up until C is read, and that schedules anew.
		return 0, false
	case b&rtcBUpdate != 0:
		return r.seen + 1, true
	case b&rtcBAlarm != 0:
		return r.nextAlarm(r.seen)
	}
	return 0, false
}

// nextAlarm gives the first time after the given one that matches the alarm
// registers, at most a day later.
func (r *rtcState) nextAlarm(after int64) (at int64, ok bool) {
	hour, anyHour := r.decodeHour(r.ram[rtcHoursAlarm]), r.ram[rtcHoursAlarm]&rtcAnyMask == rtcAnyMask
	minute, anyMinute := r.decode(r.ram[rtcMinutesAlarm]), r.ram[rtcMinutesAlarm]&rtcAnyMask == rtcAnyMask
	second, anySecond := r.decode(r.ram[rtcSecondsAlarm]), r.ram[rtcSecondsAlarm]&rtcAnyMask == rtcAnyMask
	if !anyHour && hour > 23 || !anyMinute && minute > 59 || !anySecond && second > 59 {
		return 0, false
	}
	at = after + 1
	for at <= after+rtcSecondsPerDay {
		// Counting seconds is enough: an alarm names no date, and Unix
		// time has no leap seconds.
		day := ((at % rtcSecondsPerDay) + rtcSecondsPerDay) % rtcSecondsPerDay
		h, m, s := int(day/3600), int(day/60%60), int(day%60)
		switch {
		case !anyHour && h != hour:
			at += 3600 - day%3600
		case !anyMinute && m != minute:
			at += 60 - day%60
		case !anySecond && s != second:
			at += int64((second - s + 60) % 60)
		default:
			return at, true
		}
	}
	return 0, false
}
