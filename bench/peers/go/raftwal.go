package main

import (
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// hashicorp/raft-wal. Options: the defaults (README: segments of 64 MiB, fallocated). StoreLogs
// ends with one fsync.
type raftWal struct {
	log  *wal.WAL
	last uint64
}

func openRaftWal(directory string) (store, error) {
	log, err := wal.Open(directory, wal.WithLogger(hclog.NewNullLogger()))
	if err != nil {
		return nil, err
	}
	return &raftWal{log: log}, nil
}

func (r *raftWal) append(records [][]byte) error {
	logs := make([]*raft.Log, len(records))
	for i, data := range records {
		logs[i] = &raft.Log{Index: r.last + uint64(i) + 1, Term: 1, Type: raft.LogCommand, Data: data}
	}
	if err := r.log.StoreLogs(logs); err != nil {
		return err
	}
	r.last += uint64(len(records))
	return nil
}

func (r *raftWal) close() error { return r.log.Close() }
