package journal

import "fmt"

// Trim says that the records up to and including through are done with. At once they
// are not read any more and do not count towards MaxBytes; their disk is given back
// when a whole segment can go, on the caller's time, not on Append's. What is
// trimmed stays so after a restart; only a power cut may bring back the last of them.
//
// A through beyond Last is an error: it comes from another journal.
func (j *Journal) Trim(through uint64) error {
	j.trimming.Lock()
	defer j.trimming.Unlock()
	if done, err := j.forget(through); done || err != nil {
		return err
	}
	if err := j.marks.trim(through); err != nil {
		return fmt.Errorf("trim journal through %d: %w", through, err)
	}
	// The tail itself never goes: deleting up to its end while the engine makes the next
	// one in the background would confuse it. Nor do the segments in front of an
	// empty tail yet, for the engine would then make that one anew as well.
	var from, to uint64
	for _, si := range j.meta.segments() {
		if si.SealTime.IsZero() || si.MaxIndex > through || si.MaxIndex >= j.Last() {
			break
		}
		if from == 0 {
			from = si.MinIndex
		}
		to = si.MaxIndex
	}
	if to == 0 {
		return nil
	}
	if err := j.wal.DeleteRange(from, to); err != nil {
		return fmt.Errorf("trim journal through %d: %w", through, err)
	}
	return nil
}

// forget takes the records out of the count; done when there are none to take.
func (j *Journal) forget(through uint64) (done bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.closing:
		return true, ErrClosed
	case through > j.last:
		return true, fmt.Errorf("trim journal through %d: its last record is %d", through, j.last)
	case through < j.first:
		return true, nil
	}
	j.first = through + 1
	j.waiting.trim(through)
	j.recent.trim(through)
	j.refused = false
	return false, nil
}
