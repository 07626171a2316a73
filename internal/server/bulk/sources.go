package bulk

import (
	"context"
	"encoding/json"
	"strings"

	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/source"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// sealedAddress is what stands sealed in a source.
type sealedAddress struct {
	Address string `json:"address"`
	CA      string `json:"ca,omitempty"`
}

// origin is a database and what to ask it.
type origin struct {
	at    source.Address
	query string
	label string
}

func sourceOf(r db.ImportSource) rest.Source {
	d, _ := source.Find(r.Driver)
	return rest.Source{
		ID: rest.SourcePrefix + r.ID, Name: r.Name, Driver: r.Driver, Place: r.Place, Query: r.Query, Tested: d.Tested,
		CreatedBy: r.CreatedBy, CreatedAt: rest.Time(r.CreatedAt), UsedAt: rest.Time(r.UsedAt),
	}
}

// findSource finds a source by name or id.
func findSource(ctx context.Context, q *db.Queries, ref string) (db.ImportSource, error) {
	var r db.ImportSource
	err := error(nil)
	gone := fault.Newf(fault.NotFound, "There is no source %q. Look with: latchkey import source list.", text.CleanN(ref, 128))
	if id, ok := strings.CutPrefix(ref, rest.SourcePrefix); ok && len(id) == 36 {
		r, err = q.GetImportSource(ctx, id)
	} else if ref == "" || len(ref) > 256 || strings.ContainsRune(ref, 0) || strings.ToValidUTF8(ref, "") != ref {
		return r, gone
	} else {
		r, err = q.GetImportSourceByName(ctx, ref)
	}
	if store.IsNotFound(err) {
		return r, gone
	}
	return r, err
}

// resolve finds out which database is meant. An address that is given once needs the
// right that keeping one needs.
func (s *Service) resolve(ctx context.Context, a desk.Actor, in rest.ImportQuery) (origin, error) {
	var o origin
	if (in.Source == "") == in.Address.Empty() {
		return o, fault.New(fault.Invalid, nil).With("source", "say which database: the name of a source that is kept, or an address, and not both")
	}
	if in.Source == "" {
		if err := a.MayKeepSources(); err != nil {
			return o, err
		}
		at, err := parse(in.Address, in.CA, in.Query)
		return origin{at, in.Query, at.String()}, err
	}
	// Whoever may only use a source asks what its owner has written: another query
	// would read what that account may read.
	if in.Query != "" || in.CA != "" {
		if err := a.MayKeepSources(); err != nil {
			return o, err
		}
	}
	var sealed secret.Bytes
	err := s.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		r, err := findSource(ctx, tx.Queries, in.Source)
		if err != nil {
			return err
		}
		o.query, o.label = or(in.Query, r.Query), r.Name
		if sealed, err = s.c.Box.Open(r.Address, "import_sources", "address", r.ID); err != nil {
			return err
		}
		_, err = tx.UseImportSource(ctx, db.UseImportSourceParams{ID: r.ID, At: s.now()})
		return err
	})
	if err != nil {
		return o, err
	}
	defer sealed.Wipe()
	var kept sealedAddress
	if err := json.Unmarshal(sealed.Reveal(), &kept); err != nil {
		return o, err
	}
	o.at, err = parse(rest.HideText(kept.Address), or(in.CA, kept.CA), o.query)
	return o, err
}

// parse judges an address, its certificates and the query.
func parse(address rest.Secret, ca, query string) (source.Address, error) {
	bad := fault.New(fault.Invalid, nil)
	at, err := source.Parse(string(address.Reveal()))
	if err != nil {
		bad.With("address", "%s", err)
	}
	if err := source.CheckCA([]byte(ca)); err != nil {
		bad.With("ca", "%s", err)
	}
	if err := source.CheckQuery(query); err != nil {
		bad.With("query", "%s", err)
	}
	if at.CA = []byte(ca); len(bad.Fields) > 0 {
		return at, bad
	}
	return at, nil
}

// ListSources gives the databases that are kept.
func (s *Service) ListSources(ctx context.Context, a desk.Actor) (rest.Page[rest.Source], error) {
	out := rest.Page[rest.Source]{Items: []rest.Source{}}
	if err := a.MayImport(); err != nil {
		return out, err
	}
	err := s.read(ctx, func(q *store.Queries) error {
		rows, err := q.ListImportSources(ctx)
		for _, r := range rows {
			out.Items = append(out.Items, sourceOf(r))
		}
		return err
	})
	return out, err
}

// maxSources bounds the databases that are kept.
const maxSources = 100

// AddSource keeps the address of a database, sealed.
func (s *Service) AddSource(ctx context.Context, a desk.Actor, in rest.NewSource) (rest.Source, error) {
	defer in.Address.Wipe()
	var out rest.Source
	if err := a.MayKeepSources(); err != nil {
		return out, err
	}
	bad := fault.New(fault.Invalid, nil)
	if err := desk.NameFault("name", in.Name); err != nil {
		bad.Fields = append(bad.Fields, fault.Of(err).Fields...)
	}
	at, err := parse(in.Address, in.CA, in.Query)
	defer at.Password.Wipe()
	if err != nil {
		bad.Fields = append(bad.Fields, fault.Of(err).Fields...)
	}
	if len(bad.Fields) > 0 {
		return out, bad
	}
	id, now := store.NewID(), s.now()
	plain := []byte(encode(sealedAddress{string(in.Address.Reveal()), in.CA}))
	defer clear(plain)
	sealed := s.c.Box.Seal(plain, "import_sources", "address", id)
	err = s.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		all, err := tx.ListImportSources(ctx)
		if err != nil {
			return err
		}
		if len(all) >= maxSources {
			return fault.Newf(fault.Conflict, "There are %d sources already. Remove one first.", len(all))
		}
		for _, r := range all {
			if r.Name == in.Name {
				return fault.Newf(fault.Exists, "There is a source %q already. Remove it, or choose another name.", in.Name)
			}
		}
		err = tx.InsertImportSource(ctx, db.InsertImportSourceParams{
			ID: id, Name: in.Name, Driver: at.Driver, Place: at.String(), Address: sealed, Query: in.Query, CreatedBy: a.Name, CreatedAt: now,
		})
		if err != nil {
			return err
		}
		r, err := tx.GetImportSource(ctx, id)
		if err != nil {
			return err
		}
		out = sourceOf(r)
		return desk.Note(tx, a, event.Event{Type: event.SourceAdded, Subject: in.Name}, map[string]any{"source": out.ID, "place": out.Place, "query": in.Query})
	})
	if store.IsDuplicate(err) {
		return out, fault.Newf(fault.Exists, "There is a source %q already. Remove it, or choose another name.", in.Name)
	}
	return out, err
}

// RemoveSource forgets a database.
func (s *Service) RemoveSource(ctx context.Context, a desk.Actor, ref string) error {
	if err := a.MayKeepSources(); err != nil {
		return err
	}
	return s.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		r, err := findSource(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		if _, err := tx.DeleteImportSource(ctx, r.ID); err != nil {
			return err
		}
		return desk.Note(tx, a, event.Event{Type: event.SourceRemoved, Subject: r.Name}, map[string]any{"source": rest.SourcePrefix + r.ID, "place": r.Place})
	})
}
