package main

import (
	"errors"
	"math/rand"
	"sync"
	"time"
)

const (
	recordBytes = 256
	groupMax    = 1024
)

// record does not compress.
var record = makeRecord()

func makeRecord() []byte {
	bytes := make([]byte, recordBytes)
	_, _ = rand.New(rand.NewSource(1)).Read(bytes)
	return bytes
}

// store is what a peer has to do, from one goroutine at a time.
type store interface {
	append(records [][]byte) error // durable when it returns
	close() error
}

// limits tell when a slice of work ends: whichever comes first.
type limits struct {
	deadline time.Time
	countMax int
}

// durationsUntil does one after the other and returns how long each took, in nanoseconds.
func durationsUntil(end limits, work func() error) ([]int64, error) {
	took := []int64{}
	begin := time.Now()
	for begin.Before(end.deadline) && len(took) < end.countMax {
		if err := work(); err != nil {
			return took, err
		}
		now := time.Now()
		took = append(took, now.Sub(begin).Nanoseconds())
		begin = now
	}
	return took, nil
}

// committer puts together what goroutines want to append at the same time. None of these logs does
// that by itself: the Raft loop above each hands it whatever has come in meanwhile, as one batch,
// and that loop is what stands here.
type committer struct {
	requests chan request
	stopped  sync.WaitGroup
}

type request struct {
	data []byte
	done chan error
}

func newCommitter(to store) *committer {
	c := &committer{requests: make(chan request, groupMax)}
	c.stopped.Add(1)
	go func() {
		defer c.stopped.Done()
		for first := range c.requests {
			c.commit(to, first)
		}
	}()
	return c
}

func (c *committer) stop() {
	close(c.requests)
	c.stopped.Wait()
}

// commit appends a request and all that wait behind it.
func (c *committer) commit(to store, first request) {
	group := []request{first}
	for len(c.requests) > 0 && len(group) < groupMax {
		group = append(group, <-c.requests)
	}
	records := make([][]byte, len(group))
	for i, each := range group {
		records[i] = each.data
	}
	err := to.append(records)
	for _, each := range group {
		each.done <- err
	}
}

// puts appends one record at a time from so many goroutines.
func (c *committer) puts(concurrency int, end limits) ([]int64, error) {
	taken := make([][]int64, concurrency)
	errs := make([]error, concurrency)
	var all sync.WaitGroup
	for i := range concurrency {
		all.Go(func() {
			done := make(chan error, 1)
			taken[i], errs[i] = durationsUntil(end, func() error {
				c.requests <- request{record, done}
				return <-done
			})
		})
	}
	all.Wait()
	joined := []int64{}
	for _, took := range taken {
		joined = append(joined, took...)
	}
	return joined, errors.Join(errs...)
}
