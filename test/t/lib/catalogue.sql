-- What an extension consists of, a line for each property of each object, in an
-- order of its own and without OIDs: two installations of one version must not
-- differ in any line, however each came to be.
--
--	psql -v extension=NAME -f catalogue.sql
\set ON_ERROR_STOP on
\pset format unaligned
\pset tuples_only on
SET search_path = pg_catalog, pg_temp;

CREATE TEMP TABLE member AS
SELECT d.classid, d.objid, i.type AS kind, i.identity
FROM pg_extension e
JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) i
WHERE e.extname = :'extension';

CREATE TEMP TABLE property (kind text, identity text, name text, value text);

INSERT INTO property
SELECT 'extension', extname, p.*
FROM pg_extension e, LATERAL (VALUES
	('version', extversion),
	('schema', extnamespace::regnamespace::text),
	('relocatable', extrelocatable::text),
	('dumped', (SELECT string_agg(c.relation::regclass || ' ' || c.condition, ', ' ORDER BY c.relation::regclass::text)
		FROM unnest(extconfig, extcondition) AS c(relation, condition))),
	('requires', (SELECT string_agg(r.extname, ', ' ORDER BY r.extname)
		FROM pg_depend d JOIN pg_extension r ON r.oid = d.refobjid
		WHERE d.classid = 'pg_extension'::regclass AND d.objid = e.oid AND d.refclassid = 'pg_extension'::regclass)),
	('comment', obj_description(e.oid, 'pg_extension'))) p
WHERE extname = :'extension';

INSERT INTO property
SELECT kind, identity, 'comment', obj_description(objid, classid::regclass::name) FROM member;

-- What the scripts have granted, which pg_dump leaves out
INSERT INTO property
SELECT m.kind, m.identity, 'initial privileges' || coalesce(' on ' || a.attname, ''),
	(SELECT string_agg(p::text, ', ' ORDER BY p::text) FROM unnest(i.initprivs) p)
FROM member m
JOIN pg_init_privs i ON i.classoid = m.classid AND i.objoid = m.objid
LEFT JOIN pg_attribute a ON i.classoid = 'pg_class'::regclass AND a.attrelid = i.objoid AND a.attnum = i.objsubid AND i.objsubid > 0;

INSERT INTO property
SELECT m.kind, m.identity, p.*
FROM member m JOIN pg_proc f ON m.classid = 'pg_proc'::regclass AND f.oid = m.objid, LATERAL (VALUES
	('definition', pg_get_functiondef(f.oid)),
	('owner', f.proowner::regrole::text),
	('privileges', (SELECT string_agg(p::text, ', ' ORDER BY p::text) FROM unnest(f.proacl) p))) p;

-- Tables, views, sequences and composite types
CREATE TEMP TABLE relation AS
SELECT m.kind, m.identity, c.*
FROM member m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid
UNION ALL
SELECT m.kind, m.identity, c.*
FROM member m JOIN pg_type t ON m.classid = 'pg_type'::regclass AND t.oid = m.objid
JOIN pg_class c ON c.oid = t.typrelid AND c.relkind = 'c';

INSERT INTO property
SELECT kind, identity, p.*
FROM relation c, LATERAL (VALUES
	('kind', relkind::text || relpersistence::text),
	('owner', relowner::regrole::text),
	('privileges', (SELECT string_agg(p::text, ', ' ORDER BY p::text) FROM unnest(relacl) p)),
	('options', reloptions::text),
	('access method', (SELECT amname FROM pg_am a WHERE a.oid = relam)),
	('row security', relrowsecurity::text || relforcerowsecurity::text),
	('replica identity', relreplident::text),
	('partition key', CASE WHEN relkind = 'p' THEN pg_get_partkeydef(c.oid) END),
	('partition bound', CASE WHEN relkind = 'r' THEN pg_get_expr(relpartbound, c.oid) END),
	('parent', (SELECT string_agg(inhparent::regclass::text, ', ' ORDER BY inhseqno) FROM pg_inherits WHERE inhrelid = c.oid)),
	('view', CASE WHEN relkind = 'v' THEN pg_get_viewdef(c.oid) END),
	('sequence', (SELECT concat_ws(' ', seqtypid::regtype, seqstart, seqincrement, seqmax, seqmin, seqcache, seqcycle)
		FROM pg_sequence WHERE seqrelid = c.oid)),
	('owned by', (SELECT refobjid::regclass || '.' || refobjsubid FROM pg_depend
		WHERE classid = 'pg_class'::regclass AND objid = c.oid AND relkind = 'S' AND deptype = 'a'))) p;

-- By their numbers, by which C code knows them: one that was dropped is a gap.
INSERT INTO property
SELECT kind, identity, 'column ' || attnum,
	concat_ws(' ', quote_ident(attname), format_type(atttypid, atttypmod),
		CASE WHEN attnotnull THEN 'NOT NULL' END,
		'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid),
		nullif(attidentity::text, ''), nullif(attgenerated::text, ''), attstorage, nullif(attcompression::text, ''),
		'COLLATE ' || (SELECT collname FROM pg_collation o WHERE o.oid = attcollation),
		-- (pg_attver is a stamp that some builds of PostgreSQL keep there)
		'options ' || (SELECT string_agg(o, ', ' ORDER BY o) FROM unnest(attoptions) o WHERE o !~ '^pg_attver='),
		'statistics ' || nullif(attstattarget, -1),
		'privileges ' || (SELECT string_agg(p::text, ', ' ORDER BY p::text) FROM unnest(attacl) p),
		'comment ' || col_description(attrelid, attnum))
FROM relation c
JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum;

INSERT INTO property
SELECT kind, identity, 'index ' || x.indexrelid::regclass,
	concat_ws(' ', pg_get_indexdef(x.indexrelid), 'valid ' || indisvalid, 'comment ' || obj_description(x.indexrelid, 'pg_class'))
FROM relation c JOIN pg_index x ON x.indrelid = c.oid;

INSERT INTO property
SELECT kind, identity, 'constraint ' || conname,
	concat_ws(' ', pg_get_constraintdef(k.oid), 'comment ' || obj_description(k.oid, 'pg_constraint'))
FROM relation c JOIN pg_constraint k ON k.conrelid = c.oid;

INSERT INTO property
SELECT kind, identity, 'trigger ' || tgname,
	concat_ws(' ', pg_get_triggerdef(t.oid), 'enabled ' || tgenabled::text, 'comment ' || obj_description(t.oid, 'pg_trigger'))
FROM relation c JOIN pg_trigger t ON t.tgrelid = c.oid AND NOT tgisinternal;

INSERT INTO property
SELECT kind, identity, 'policy ' || polname,
	concat_ws(' ', polcmd::text, polpermissive, polroles::regrole[], pg_get_expr(polqual, c.oid), pg_get_expr(polwithcheck, c.oid))
FROM relation c JOIN pg_policy p ON p.polrelid = c.oid;

INSERT INTO property
SELECT m.kind, m.identity, 'type', concat_ws(' ', typtype::text, format_type(typbasetype, typtypmod), typnotnull, typdefault, typacl,
	(SELECT string_agg(enumlabel, ', ' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid))
FROM member m JOIN pg_type t ON m.classid = 'pg_type'::regclass AND t.oid = m.objid;

SELECT concat_ws(' | ', kind, identity, name, translate(value, E'\n', ' '))
FROM property
WHERE value IS NOT NULL OR name = 'comment'
ORDER BY kind COLLATE "C", identity COLLATE "C", name COLLATE "C", value COLLATE "C";
