package index

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestEveryEntryIsFoundInRunsOfAnySizeHoweverMerged(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{1, 2, 7, 15, 16, 17, 255, 256, 1000, 20_000} {
		var s stack
		want := map[uint64][]uint64{}
		for n := 0; n < size; {
			var step []entry
			for range min(1+random.IntN(300), size-n) {
				n++
				e := entry{random.Uint64(), uint64(1000 + n)}
				switch random.IntN(10) {
				case 0:
					e.mark = uint64(random.IntN(3)) // the same ones, at the lower end
				case 1:
					e.mark = math.MaxUint64 - uint64(random.IntN(3))
				}
				want[e.mark] = append(want[e.mark], e.sequence)
				step = append(step, e)
			}
			for _, r := range newRuns(step) {
				s = s.push(r)
			}
		}
		if len(s) > 20 {
			t.Errorf("%d entries lie in %d runs", size, len(s))
		}
		for _, s := range []stack{s, slices.Clone(s).squeeze()} {
			total := 0
			for p, sequences := range want {
				var found []uint64
				for _, r := range s {
					found = r.find(p, found)
				}
				slices.Sort(found)
				if !slices.Equal(found, sequences) {
					t.Fatalf("of %d: %x lies at %v, want %v", size, p, found, sequences)
				}
				total += len(found)
			}
			if total != size {
				t.Errorf("%d found of %d", total, size)
			}
			for range 1000 {
				p := random.Uint64()
				for _, r := range s {
					if found := r.find(p, nil); len(found) != 0 && want[p] == nil {
						t.Fatalf("found %x, which never was", p)
					}
				}
			}
		}
	}
}

func TestSequencesThatLieFarApartAreKeptApart(t *testing.T) {
	const far = 3 << 32
	var s stack
	for _, r := range newRuns([]entry{{9, far}, {1, 5}, {2, far + 1}, {3, 5 + math.MaxUint32}}) {
		s = s.push(r)
	}
	s = s.squeeze()
	for p, want := range map[uint64]uint64{9: far, 1: 5, 2: far + 1, 3: 5 + math.MaxUint32} {
		var found []uint64
		for _, r := range s {
			found = r.find(p, found)
		}
		if !slices.Equal(found, []uint64{want}) {
			t.Errorf("%d lies at %v, want %d", p, found, want)
		}
	}
}

func TestGapsAreWhatNoStretchCovers(t *testing.T) {
	var c coverage
	for _, s := range []stretch{{1, 10}, {11, 20}, {31, 40}, {35, 38}, {50, 60}, {21, 22}} {
		c = c.add(s.from, s.through)
	}
	for _, w := range []struct {
		first, last uint64
		want        []stretch
	}{
		{1, 60, []stretch{{23, 30}, {41, 49}}},
		{1, 70, []stretch{{23, 30}, {41, 49}, {61, 70}}},
		{25, 45, []stretch{{25, 30}, {41, 45}}},
		{32, 36, nil},
		{71, 70, nil},
		{1, 0, nil},
	} {
		if got := slices.Clone(c).gaps(w.first, w.last); !slices.Equal(got, w.want) {
			t.Errorf("from %d to %d: %v, want %v", w.first, w.last, got, w.want)
		}
	}
}
