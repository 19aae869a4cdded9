// One Go peer of the log, which runs a slice of work for each line that it reads.
//
// "peers NAME" with NAME one of "etcd wal", "tidwall/wal", "raft-wal". The lines and their answers
// are those of bench/serve.py: open DIRECTORY, puts CONCURRENCY MILLISECONDS MAX, batches RECORDS
// MILLISECONDS MAX, trim, close. Everything that is put is synced when the call returns; each
// peer's options stand in its file.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

type answer map[string]any

type server struct {
	name      string
	store     store
	committer *committer
}

var openers = map[string]struct {
	module string
	open   func(directory string) (store, error)
}{
	"etcd wal":    {"go.etcd.io/etcd/server/v3", openEtcd},
	"tidwall/wal": {"github.com/tidwall/wal", openTidwall},
	"raft-wal":    {"github.com/hashicorp/raft-wal", openRaftWal},
}

func main() {
	s := &server{name: strings.Join(os.Args[1:], " ")}
	lines := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		said, err := s.do(strings.Fields(lines.Text()))
		if err != nil {
			said = answer{"failed": err.Error()}
		}
		if err := out.Encode(said); err != nil {
			return
		}
	}
}

func (s *server) do(words []string) (answer, error) {
	if len(words) == 2 && words[0] == "open" {
		return s.open(words[1])
	}
	if s.store == nil || len(words) == 0 {
		return answer{"error": fmt.Sprintf("%s is not open", s.name)}, nil
	}
	switch words[0] {
	case "trim":
		return answer{}, nil
	case "close":
		s.committer.stop()
		err := s.store.close()
		s.store = nil
		return answer{}, err
	case "puts", "batches":
		return s.slice(words)
	}
	return answer{"error": fmt.Sprintf("%s cannot do %q", s.name, words[0])}, nil
}

func (s *server) open(directory string) (answer, error) {
	opener, known := openers[s.name]
	if !known {
		return nil, fmt.Errorf("there is no peer %q", s.name)
	}
	begin := time.Now()
	opened, err := opener.open(directory)
	if err != nil {
		return nil, err
	}
	s.store, s.committer = opened, newCommitter(opened)
	wall := time.Since(begin).Nanoseconds()
	return answer{"wall_ns": wall, "version": version(s.name, opener.module)}, nil
}

// slice runs "puts CONCURRENCY MILLISECONDS MAX" or "batches RECORDS MILLISECONDS MAX".
func (s *server) slice(words []string) (answer, error) {
	var numbers []int
	for _, word := range words[1:] {
		number, err := strconv.Atoi(word)
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, number)
	}
	if len(numbers) != 3 || numbers[0] < 1 {
		return nil, errors.New("three numbers are needed")
	}
	begin := time.Now()
	end := limits{begin.Add(time.Duration(numbers[1]) * time.Millisecond), numbers[2]}
	var took []int64
	var err error
	if words[0] == "puts" {
		end.countMax = max(1, end.countMax/numbers[0])
		took, err = s.committer.puts(numbers[0], end)
	} else {
		batch := make([][]byte, numbers[0])
		for i := range batch {
			batch[i] = record
		}
		took, err = durationsUntil(end, func() error { return s.store.append(batch) })
	}
	return answer{"wall_ns": time.Since(begin).Nanoseconds(), "ns": took}, err
}

// version tells a peer's version, from what the program was built of.
func version(name, module string) string {
	info, _ := debug.ReadBuildInfo()
	if info != nil {
		for _, each := range info.Deps {
			if each.Path == module {
				return name + " " + strings.TrimPrefix(each.Version, "v")
			}
		}
	}
	return name + " of unknown version"
}
