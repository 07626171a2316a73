package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"latchkey/internal/clock"
	"latchkey/internal/statefile"
)

// A backup is text, one JSON value a line, the same from both engines, so that it
// can be restored into either:
//
//	{"latchkey_backup":1,"schema":1,"engine":"sqlite","replica":"main","at":1750000000000000}
//	{"table":"users","columns":["id","uid","disabled",…],"types":["text","int","bool",…]}
//	["0190…",1000,false,…]
//	…
//	{"end":true,"rows":1234,"sha256":"…"}
//
// Octets are base64. The digest covers every line before the last. A backup holds
// sealed secrets as they lie in the tables, never the key that opens them.

// backupFormat is the version of the format that this program writes and the
// highest that it reads. 1: 2026.
const backupFormat = 1

// maxBackupLine bounds a line of a backup, in octets.
const maxBackupLine = 64 << 20

// table is what the catalogue says of one.
type table struct {
	name string
	key  string   // the columns of the primary key, for ORDER BY
	refs []string // tables that its foreign keys name
}

// backedUp are the tables of the schema as it is, in an order that foreign keys
// allow, else by name.
func backedUp(ctx context.Context, tx *sql.Tx, e engine) ([]table, error) {
	all, err := e.tables(ctx, tx)
	if err != nil {
		return nil, fmt.Errorf("list the tables: %w", err)
	}
	slices.SortFunc(all, func(a, b table) int { return strings.Compare(a.name, b.name) })
	var out []table
	done := map[string]bool{}
	for len(out) < len(all) {
		before := len(out)
		for _, t := range all {
			ready := func(ref string) bool { return done[ref] || ref == t.name }
			if !done[t.name] && !slices.ContainsFunc(t.refs, func(ref string) bool { return !ready(ref) }) {
				done[t.name] = true
				out = append(out, t)
			}
		}
		if len(out) == before {
			return nil, errors.New("the foreign keys form a circle")
		}
	}
	return out, nil
}

// BackupInfo says what is in a backup.
type BackupInfo struct {
	Format  int    `json:"latchkey_backup"`
	Schema  int64  `json:"schema"`
	Engine  string `json:"engine"`
	Replica string `json:"replica"`
	At      int64  `json:"at"` // unix microseconds
	Rows    int64  `json:"-"`
}

type backupTable struct {
	Table   string   `json:"table"`
	Columns []string `json:"columns"`
	Types   []string `json:"types"`
}

type backupEnd struct {
	End    bool   `json:"end"`
	Rows   int64  `json:"rows"`
	SHA256 string `json:"sha256"`
}

// Errors of Restore.
var (
	// ErrBackupNewer: a newer program wrote the backup.
	ErrBackupNewer = errors.New("the backup was written by a newer program: update latchkeyd")
	// ErrBackupDamaged: it is cut off, changed, or no backup at all.
	ErrBackupDamaged = errors.New("the backup is damaged")
	// ErrNotEmpty: the database to restore into holds something.
	ErrNotEmpty = errors.New("the database is not empty: a backup is restored only into a new one")
)

// Backup writes everything to w from one snapshot, while the server goes on.
func (s *Store) Backup(ctx context.Context, w io.Writer) (BackupInfo, error) {
	info := BackupInfo{Format: backupFormat, Engine: s.engine.name(), Replica: s.conf.Replica, At: clock.Micros(s.conf.Clock.Now())}
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: s.engine.snapshot()})
	if err != nil {
		return info, fmt.Errorf("back up: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing to lose
	if info.Schema, err = schemaVersion(ctx, tx); err != nil {
		return info, fmt.Errorf("back up: read the schema's version: %w", err)
	}
	d := &dump{w: bufio.NewWriterSize(w, 1<<16), sum: sha256.New()}
	d.line(info)
	tables, err := backedUp(ctx, tx, s.engine)
	if err != nil {
		return info, fmt.Errorf("back up: %w", err)
	}
	for _, t := range tables {
		if err := dumpTable(ctx, tx, s.engine, d, t); err != nil {
			return info, fmt.Errorf("back up %s: %w", t.name, err)
		}
	}
	d.line(backupEnd{End: true, Rows: d.rows, SHA256: hex.EncodeToString(d.sum.Sum(nil))})
	info.Rows = d.rows
	if d.err == nil {
		d.err = d.w.Flush()
	}
	if d.err != nil {
		return info, fmt.Errorf("back up: %w", d.err)
	}
	return info, nil
}

// BackupFile writes a backup to path, readable by its owner alone, whole or not at
// all: a file that stands there stays until the new one is on the disk.
func (s *Store) BackupFile(ctx context.Context, path string) (BackupInfo, error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part-*")
	if err != nil {
		return BackupInfo{}, fmt.Errorf("back up: %w", err)
	}
	defer os.Remove(f.Name())
	info, err := s.Backup(ctx, f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return info, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return info, err
	}
	return info, statefile.SyncDir(filepath.Dir(path))
}

// dump writes lines and keeps the first error.
type dump struct {
	w    *bufio.Writer
	sum  hash.Hash
	rows int64
	err  error
}

func (d *dump) line(v any) {
	if d.err != nil {
		return
	}
	b, err := json.Marshal(v)
	if err != nil {
		d.err = err
		return
	}
	b = append(b, '\n')
	d.sum.Write(b)
	_, d.err = d.w.Write(b)
}

func dumpTable(ctx context.Context, tx *sql.Tx, e engine, d *dump, t table) error {
	columns, types, err := e.columns(ctx, tx, t.name)
	if err != nil {
		return err
	}
	d.line(backupTable{t.name, columns, types})
	rows, err := tx.QueryContext(ctx, "SELECT "+strings.Join(columns, ", ")+" FROM "+t.name+" ORDER BY "+t.key)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() && d.err == nil {
		row := make([]any, len(columns))
		for i, t := range types {
			switch t {
			case "text":
				row[i] = new(sql.NullString)
			case "int":
				row[i] = new(sql.NullInt64)
			case "bool":
				row[i] = new(sql.NullBool)
			case "bytes":
				row[i] = new([]byte)
			}
		}
		if err := rows.Scan(row...); err != nil {
			return err
		}
		for i := range row {
			switch v := row[i].(type) {
			case *sql.NullString:
				row[i] = orNull(v.Valid, v.String)
			case *sql.NullInt64:
				row[i] = orNull(v.Valid, v.Int64)
			case *sql.NullBool:
				row[i] = orNull(v.Valid, v.Bool)
			case *[]byte:
				row[i] = orNull(*v != nil, *v) // marshalled as base64
			}
		}
		d.line(row)
		d.rows++
	}
	return errors.Join(rows.Err(), rows.Close())
}

func orNull(valid bool, v any) any {
	if !valid {
		return nil
	}
	return v
}

// typeOf is the backup's name of a column type as both engines declare it.
func typeOf(declared string) (string, error) {
	switch strings.ToLower(declared) {
	case "text":
		return "text", nil
	case "bigint":
		return "int", nil
	case "boolean":
		return "bool", nil
	case "bytea":
		return "bytes", nil
	}
	return "", fmt.Errorf("a column of type %q, which the backup does not know", declared)
}

// Filling is a database that a backup was read into and that nobody else sees yet.
type Filling struct{ tx *sql.Tx }

// Setting reads a setting as the backup has it; nil if it has none.
func (f Filling) Setting(ctx context.Context, key string) (value []byte, err error) {
	err = f.tx.QueryRowContext(ctx, "SELECT value FROM settings WHERE key = $1", key).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return value, err
}

// PutSetting writes a setting beside what the backup has.
func (f Filling) PutSetting(ctx context.Context, key string, value []byte, at int64) error {
	_, err := f.tx.ExecContext(ctx, "INSERT INTO settings (key, value, updated_at) VALUES ($1, $2, $3) "+
		"ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at", key, value, at)
	return err
}

// Restore fills a new database from a backup, whole or not at all, and brings its
// schema forward. A database that holds anything is refused. judge, if not nil, sees
// what was filled in before it is kept: its error leaves the database empty.
func Restore(ctx context.Context, conf Config, r io.Reader, judge func(context.Context, Filling) error) (BackupInfo, error) {
	conf, err := conf.complete()
	if err != nil {
		return BackupInfo{}, err
	}
	d := newBackupReader(r)
	info, err := d.header()
	if err != nil {
		return info, err
	}
	s, err := connect(ctx, conf)
	if err != nil {
		return info, err
	}
	if info, err = s.restore(ctx, d, info, judge); err != nil {
		err = fmt.Errorf("restore into %s: %w", s.engine.describe(), err)
	}
	return info, errors.Join(err, s.disconnect())
}

func (s *Store) restore(ctx context.Context, d *backupReader, info BackupInfo, judge func(context.Context, Filling) error) (BackupInfo, error) {
	// The schema is brought to where the backup was, so that its rows fit; the
	// later migrations then treat them as they would have treated the original's.
	if err := s.migrate(ctx, shipped(), info.Schema); err != nil {
		if errors.Is(err, ErrNewer) {
			return info, fmt.Errorf("%w (the database has a newer schema than the backup)", ErrNotEmpty)
		}
		return info, err
	}
	reached, err := schemaVersion(ctx, s.write)
	if err != nil {
		return info, err
	}
	if reached < info.Schema {
		return info, fmt.Errorf("%w (its schema is %d, known is %d)", ErrBackupNewer, info.Schema, reached)
	}
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return info, err
	}
	defer tx.Rollback() //nolint:errcheck // does nothing after a commit
	tables, err := backedUp(ctx, tx, s.engine)
	if err != nil {
		return info, err
	}
	for _, t := range tables {
		q := "SELECT COUNT(*) FROM " + t.name
		if t.name == "chains" {
			q += " WHERE seq > 0" // a server that only started has written its name there
		}
		var n int64
		if err := tx.QueryRowContext(ctx, q).Scan(&n); err != nil {
			return info, err
		}
		if n > 0 {
			return info, fmt.Errorf("%w (table %s)", ErrNotEmpty, t.name)
		}
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM chains"); err != nil {
		return info, err
	}
	var insert *sql.Stmt
	defer func() {
		if insert != nil {
			_ = insert.Close()
		}
	}()
	rows, err := d.tables(func(t backupTable) error {
		if insert != nil {
			_ = insert.Close()
		}
		// The names come from a file: they must be those of this schema, all of them.
		if !slices.ContainsFunc(tables, func(k table) bool { return k.name == t.Table }) {
			return fmt.Errorf("%w: schema %d has no table %.40q", ErrBackupDamaged, info.Schema, t.Table)
		}
		columns, types, err := s.engine.columns(ctx, tx, t.Table)
		if err != nil {
			return err
		}
		if !slices.Equal(columns, t.Columns) || !slices.Equal(types, t.Types) {
			return fmt.Errorf("%w: the columns of table %s are not those of schema %d", ErrBackupDamaged, t.Table, info.Schema)
		}
		places := make([]string, len(columns))
		for i := range places {
			places[i] = fmt.Sprintf("$%d", i+1)
		}
		insert, err = tx.PrepareContext(ctx, "INSERT INTO "+t.Table+" ("+strings.Join(columns, ", ")+") VALUES ("+strings.Join(places, ", ")+")")
		return err
	}, func(row []any) error {
		_, err := insert.ExecContext(ctx, row...)
		return err
	})
	if err != nil {
		return info, err
	}
	info.Rows = rows
	if judge != nil {
		if err := judge(ctx, Filling{tx}); err != nil {
			return info, err
		}
	}
	if err := tx.Commit(); err != nil {
		return info, err
	}
	return info, s.migrate(ctx, shipped(), latest)
}

// backupReader reads a backup and checks its form, without a database.
type backupReader struct {
	r    *bufio.Reader
	sum  hash.Hash
	line int
	next []byte // the line read last, without its end
	raw  []byte
}

func newBackupReader(r io.Reader) *backupReader {
	return &backupReader{r: bufio.NewReaderSize(r, 1<<16), sum: sha256.New()}
}

func (d *backupReader) damaged(why string, args ...any) error {
	return fmt.Errorf("%w: line %d: %s", ErrBackupDamaged, d.line, fmt.Sprintf(why, args...))
}

// read takes the next line. The one before it enters the digest.
func (d *backupReader) read() error {
	d.sum.Write(d.raw)
	d.raw = d.raw[:0]
	d.line++
	for {
		part, err := d.r.ReadSlice('\n')
		d.raw = append(d.raw, part...)
		switch {
		case len(d.raw) > maxBackupLine:
			return d.damaged("it is longer than %d octets", maxBackupLine)
		case err == nil:
			d.next = d.raw[:len(d.raw)-1]
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return d.damaged("the backup ends here, before its last line")
		default:
			return fmt.Errorf("read the backup: %w", err)
		}
	}
}

func (d *backupReader) strict(v any) error {
	j := json.NewDecoder(bytes.NewReader(d.next))
	j.DisallowUnknownFields()
	if err := j.Decode(v); err != nil {
		return d.damaged("%v", err)
	}
	if _, err := j.Token(); !errors.Is(err, io.EOF) {
		return d.damaged("more than one value")
	}
	return nil
}

func (d *backupReader) header() (BackupInfo, error) {
	var info BackupInfo
	if err := d.read(); err != nil {
		return info, err
	}
	// The version is looked at before the rest, which a newer format may have changed.
	var v struct {
		Format *int `json:"latchkey_backup"`
	}
	if err := json.Unmarshal(d.next, &v); err != nil || v.Format == nil {
		return info, fmt.Errorf("%w: it does not begin as a Latchkey backup", ErrBackupDamaged)
	}
	if *v.Format > backupFormat {
		return info, fmt.Errorf("%w (format %d, known %d)", ErrBackupNewer, *v.Format, backupFormat)
	}
	if err := d.strict(&info); err != nil {
		return info, err
	}
	if info.Format < 1 || info.Schema < 1 {
		return info, d.damaged("format %d, schema %d", info.Format, info.Schema)
	}
	return info, nil
}

// tables reads to the end: table begins each table, row gets its rows as values for
// database/sql. A table comes at most once.
func (d *backupReader) tables(table func(backupTable) error, row func([]any) error) (int64, error) {
	var t backupTable
	var rows int64
	seen := map[string]bool{}
	for {
		if err := d.read(); err != nil {
			return rows, err
		}
		if len(d.next) == 0 {
			return rows, d.damaged("it is empty")
		}
		if d.next[0] == '[' {
			if t.Table == "" {
				return rows, d.damaged("a row before the first table")
			}
			values, err := d.values(t)
			if err != nil {
				return rows, err
			}
			if err := row(values); err != nil {
				return rows, fmt.Errorf("table %s, line %d: %w", t.Table, d.line, err)
			}
			rows++
			continue
		}
		if bytes.HasPrefix(d.next, []byte(`{"end"`)) {
			var end backupEnd
			if err := d.strict(&end); err != nil {
				return rows, err
			}
			if got := hex.EncodeToString(d.sum.Sum(nil)); got != end.SHA256 || end.Rows != rows || !end.End {
				return rows, d.damaged("%d rows with digest %s were written, %d with %s are here", end.Rows, end.SHA256, rows, got)
			}
			if n, err := d.r.Peek(1); len(n) > 0 || !errors.Is(err, io.EOF) {
				return rows, d.damaged("something follows the end")
			}
			return rows, nil
		}
		t = backupTable{}
		if err := d.strict(&t); err != nil {
			return rows, err
		}
		if t.Table == "" || seen[t.Table] {
			return rows, d.damaged("the table %.40q has no name or stands twice", t.Table)
		}
		seen[t.Table] = true
		if len(t.Columns) == 0 || len(t.Columns) != len(t.Types) {
			return rows, d.damaged("%d columns and %d types", len(t.Columns), len(t.Types))
		}
		if err := table(t); err != nil {
			return rows, err
		}
	}
}

func (d *backupReader) values(t backupTable) ([]any, error) {
	var raw []json.RawMessage
	if err := d.strict(&raw); err != nil {
		return nil, err
	}
	if len(raw) != len(t.Types) {
		return nil, d.damaged("%d values for %d columns", len(raw), len(t.Types))
	}
	out := make([]any, len(raw))
	for i, r := range raw {
		if string(r) == "null" {
			continue
		}
		var err error
		switch t.Types[i] {
		case "text":
			var v string
			err = json.Unmarshal(r, &v)
			out[i] = v
		case "int":
			var v int64
			err = json.Unmarshal(r, &v)
			out[i] = v
		case "bool":
			var v bool
			err = json.Unmarshal(r, &v)
			out[i] = v
		case "bytes":
			var v string
			if err = json.Unmarshal(r, &v); err == nil {
				out[i], err = base64.StdEncoding.Strict().DecodeString(v)
			}
		default:
			err = fmt.Errorf("unknown type %.20q", t.Types[i])
		}
		if err != nil {
			return nil, d.damaged("value %d: %v", i+1, err)
		}
	}
	return out, nil
}
