package main

import "github.com/tidwall/wal"

// tidwall/wal. Options: DefaultOptions (its documentation: NoSync is false, "Fsync after every
// write"; binary format; segments of 20 MB). A batch is one write and one fsync.
type tidwallLog struct {
	log  *wal.Log
	last uint64
}

func openTidwall(directory string) (store, error) {
	log, err := wal.Open(directory, wal.DefaultOptions)
	if err != nil {
		return nil, err
	}
	return &tidwallLog{log: log}, nil
}

func (t *tidwallLog) append(records [][]byte) error {
	batch := new(wal.Batch)
	for i, data := range records {
		batch.Write(t.last+uint64(i)+1, data)
	}
	if err := t.log.WriteBatch(batch); err != nil {
		return err
	}
	t.last += uint64(len(records))
	return nil
}

func (t *tidwallLog) close() error { return t.log.Close() }
