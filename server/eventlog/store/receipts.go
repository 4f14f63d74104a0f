package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// receiptsAge is how long a receipt is kept here at least: many times as long as the embedded server takes to write down where a consumer stands, which it does ten times a second.
const receiptsAge = 5 * time.Second

// Each line of the files is one of the marks and a receipt.
const (
	doneMark  = "d "
	givenMark = "g "
)

// Done is what Remember takes for a receipt of what is settled.
func Done(receipt string) string { return doneMark + receipt }

// Given is what Remember takes for a receipt of what was given again.
func Given(receipt string) string { return givenMark + receipt }

// Receipts remember on disk what was settled, and what was given again, in the last few seconds. The embedded server answers before it has written down where a consumer stands:
// after a kill it knows nothing of the last tenth of a second, and after a power cut of more than that. What is remembered here is done once more then, before anybody is given anything.
type Receipts struct {
	// Age is how long a receipt is kept at least. It is 5 s, and changed before the first use only.
	Age time.Duration

	dir      Folder
	standing standing

	mu      sync.Mutex // guards what follows
	waiting *commit
	running bool

	// The rest belongs to whoever runs.
	carried []byte // what was there at the start
	file    *os.File
	number  int // of the file in use: 0 or 1
	began   time.Time
}

// commit is what is written in one step.
type commit struct {
	text bytes.Buffer
	done chan struct{}
	err  error
}

// Receipts are those of the folder. Nothing is read yet.
func (f Folder) Receipts() *Receipts {
	return &Receipts{Age: receiptsAge, dir: f, standing: standing{dir: f}}
}

func (r *Receipts) path(number int) string {
	return filepath.Join(string(r.dir), "receipts-"+strconv.Itoa(number))
}

// Remember writes lines and returns when they are durable. What waits at the same time is written in one step.
func (r *Receipts) Remember(lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	r.mu.Lock()
	if r.waiting == nil {
		r.waiting = &commit{done: make(chan struct{})}
	}
	mine := r.waiting
	for _, line := range lines {
		mine.text.WriteString(line + "\n")
	}
	if r.running {
		r.mu.Unlock()
		<-mine.done
		return mine.err
	}
	r.running = true
	for r.waiting != nil {
		step := r.waiting
		r.waiting = nil
		r.mu.Unlock()
		if step.err = r.write(step.text.Bytes()); step.err != nil {
			step.err = fmt.Errorf("write down what is settled: %w", step.err)
		}
		close(step.done)
		r.mu.Lock()
	}
	r.running = false
	r.mu.Unlock()
	return mine.err
}

// write appends to the file in use, or begins the other one when that is old enough.
func (r *Receipts) write(text []byte) error {
	if r.file == nil || time.Since(r.began) > r.Age {
		if err := r.turn(); err != nil {
			return err
		}
	}
	_, err := r.file.Write(text)
	if err == nil {
		err = r.file.Sync()
	}
	if err != nil { // what is in the file now is not known, so the next one is another
		err = errors.Join(err, r.file.Close())
		r.file = nil
	}
	return err
}

// turn begins the other file. The first one after a start takes the place of the older of the two, and begins with what both had: after one more crash that is still of use.
func (r *Receipts) turn() error {
	next := 1 - r.number
	if r.file == nil {
		next = r.older()
	} else {
		if err := r.settleDown(next); err != nil {
			return err
		}
		if err := r.file.Close(); err != nil {
			return err
		}
	}
	r.file = nil
	fresh := filepath.Join(string(r.dir), "receipts-new")
	file, err := os.OpenFile(fresh, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(r.carried)
	if err = errors.Join(err, file.Sync(), os.Rename(fresh, r.path(next)), syncPath(string(r.dir))); err != nil {
		return errors.Join(err, file.Close())
	}
	r.file, r.number, r.began, r.carried = file, next, time.Now(), nil
	return nil
}

// settleDown keeps where the consumers stand that a file has receipts of, so that it may be let go of.
func (r *Receipts) settleDown(number int) error {
	found := map[Consumer]*Lost{}
	if err := r.notes(number, found, func(string) {}); err != nil {
		return err
	}
	return r.standing.keep(slices.Collect(maps.Keys(found)))
}

// older is the file that was written to longer ago, or is not there.
func (r *Receipts) older() int {
	first, err := os.Stat(r.path(0))
	if err != nil {
		return 0
	}
	second, err := os.Stat(r.path(1))
	if err != nil || second.ModTime().Before(first.ModTime()) {
		return 1
	}
	return 0
}

// Close ends the writing. Nobody writes any more.
func (r *Receipts) Close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// Lost is what a server that was cut off may have lost of a consumer.
type Lost struct {
	// Done has the receipts of what is settled, Given the highest attempt told of what is not, by sequence.
	Done  map[uint64]string
	Given map[uint64]int
	// Was is what the server has written down.
	Was Position
}

// Load reads what was settled and given last, and where the server has those consumers. The server must not run.
func (r *Receipts) Load() (map[Consumer]*Lost, error) {
	if err := r.standing.restore(); err != nil {
		return nil, err
	}
	found := map[Consumer]*Lost{}
	r.carried = nil
	for number := range 2 {
		if err := r.notes(number, found, func(line string) { r.carried = append(append(r.carried, line...), '\n') }); err != nil {
			return nil, err
		}
	}
	for key, work := range found {
		data, err := os.ReadFile(filepath.Join(r.dir.Consumer(key), consumerState))
		if errors.Is(err, os.ErrNotExist) {
			continue // it was removed, or has given nothing yet as far as it knows
		}
		if err != nil {
			return nil, fmt.Errorf("read where consumer %s stands: %w", key.Name, err)
		}
		if work.Was, err = DecodePosition(data); err != nil {
			// How often something was given is not known then, and is better told too low than too high.
			work.Was, work.Given = Position{Attempts: map[uint64]int{}}, nil
		}
	}
	return found, nil
}

// notes takes in the lines of a file, and calls do with each that is one.
func (r *Receipts) notes(number int, found map[Consumer]*Lost, do func(line string)) error {
	text, err := os.ReadFile(r.path(number))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read what was settled last: %w", err)
	}
	for {
		line, rest, whole := bytes.Cut(text, []byte("\n"))
		if !whole {
			return nil // cut off, and so answered to nobody
		}
		text = rest
		if note(found, string(line)) {
			do(string(line))
		}
	}
}

// note takes a line in, and tells whether it is one.
func note(found map[Consumer]*Lost, line string) bool {
	receipt, done := strings.CutPrefix(line, doneMark)
	given := false
	if !done {
		receipt, given = strings.CutPrefix(line, givenMark)
	}
	at, err := parseReceipt(receipt)
	if !done && !given || err != nil {
		return false
	}
	work := found[at.Consumer]
	if work == nil {
		work = &Lost{Done: map[uint64]string{}, Given: map[uint64]int{}, Was: Position{Attempts: map[uint64]int{}}}
		found[at.Consumer] = work
	}
	if done {
		work.Done[at.sequence] = receipt
	} else {
		work.Given[at.sequence] = max(work.Given[at.sequence], at.attempt)
	}
	return true
}

// parsedReceipt is what a receipt says.
type parsedReceipt struct {
	Consumer
	attempt  int
	sequence uint64
}

// parseReceipt reads a receipt: a subject of 9 words, or of more where it names domain and account first.
func parseReceipt(receipt string) (p parsedReceipt, err error) {
	words := strings.Split(receipt, ".")
	if len(words) > 9 && len(words) >= 11 {
		words = append(words[:2:2], words[4:]...)
	}
	if len(words) < 9 || words[0] != "$JS" || words[1] != "ACK" {
		return p, fmt.Errorf("%q is no receipt", receipt)
	}
	p.Stream, p.Name = words[2], words[3]
	if p.attempt, err = strconv.Atoi(words[4]); err == nil {
		p.sequence, err = strconv.ParseUint(words[5], 10, 64)
	}
	if err != nil {
		return p, fmt.Errorf("%q is no receipt: %w", receipt, err)
	}
	// Both end up in the name of a file.
	if !plainWord(p.Stream) || !plainWord(p.Name) {
		return p, fmt.Errorf("%q is no receipt of a consumer of ours", receipt)
	}
	return p, nil
}
