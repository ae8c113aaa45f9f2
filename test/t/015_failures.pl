# What maintenance cannot do is passed over, reported, and tried again; the rest
# goes on.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $node = new_node(
	'failures',
	preload => 'session_manager',
	conf => qq(
session_manager.sweep_interval = 1s
session_manager.flush_interval = 1s
session_manager.touch_interval = 0
session_manager.rotation_grace = 0
session_manager.event_partition = day
));

sub value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

sub errors
{
	my ($step) = @_;
	return value(
		"SELECT value FROM session_info() WHERE key = 'errors_$step'");
}

sub stat_of
{
	my ($column) = @_;
	return value(
		"SELECT $column FROM session_stats WHERE database_name = 'postgres'");
}

# Only these are left of the sessions whose user has a name that begins so.
sub left
{
	my ($prefix) = @_;
	return value(
		"SELECT string_agg(user_id, ' ' ORDER BY user_id) FROM user_sessions WHERE user_id LIKE '$prefix%'"
	);
}

ok(first_pass($node), 'workers are at work');
is(errors($_), 'none', "no failure of step $_ yet")
  for qw(findings touches sweep partitions resealing);

# A foreign key, checked at once or at the commit
foreach my $deferred ('', 'DEFERRABLE INITIALLY DEFERRED')
{
	my $name = $deferred eq '' ? 'a foreign key' : 'a deferred foreign key';
	my $before = stat_of('sweep_failed');
	value(
		"CREATE TABLE orders (session_id uuid REFERENCES user_sessions $deferred)"
	);
	# (together: they have ended when the second begins, on a busy machine)
	value(
		"BEGIN;
		SELECT count(*) FROM generate_series(1, 2500) AS i, session_create('fk' || i, ttl => '2 seconds');
		INSERT INTO orders SELECT session_id FROM user_sessions WHERE user_id IN ('fk7', 'fk1200');
		COMMIT"
	);
	ok( wait_until(sub { left('fk') eq 'fk1200 fk7' }, 60),
		"$name keeps no other session from being deleted");
	ok(wait_until(sub { stat_of('sweep_failed') > $before }),
		'the failure is counted');
	like(errors('sweep'), qr/^\d+, the last at 20.*: 23503: .*foreign key/,
		'and told');
	like(stat_of('sweep_error'), qr/^23503/, 'by session_stats as well');
	is(stat_of("sweep_failed_at > now() - interval '5 min'"),
		't', 'with its time');
	my $sweeps = stat_of('sweeps');
	ok(wait_until(sub { stat_of('sweeps') > $sweeps + 1 }), 'passes go on');
	value('DROP TABLE orders');
	ok( wait_until(sub { left('fk') eq '' }, 90),
		'once nothing is in the way, it is deleted');
}
value(
	"CREATE TABLE orders (session_id uuid REFERENCES user_sessions ON DELETE CASCADE)"
);
value("SELECT session_create('cascade', ttl => '2 seconds')");
value(
	"INSERT INTO orders SELECT session_id FROM user_sessions WHERE user_id = 'cascade'"
);
ok( wait_until(sub { left('cascade') eq '' }),
	'ON DELETE CASCADE is no obstacle');
is(value('SELECT count(*) FROM orders'), 0, 'and cascades');
value('DROP TABLE orders');
my $message = slurp_file($node->logfile);
like(
	$message,
	qr/WARNING:  session_manager could not delete or requeue session [0-9a-f-]{36}: update or delete/,
	'the log names the session');
unlike($message, qr/Key \(session_id\)=/, 'without the detail of the error');

# A trigger that raises, on rows that cannot even be put off
value(
	q(CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
	$$BEGIN IF OLD.user_id LIKE '%-stuck' THEN RAISE 'never'; END IF; RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END$$;
	CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON user_sessions FOR EACH ROW EXECUTE FUNCTION refuse();)
);
value(
	"SELECT count(*) FROM generate_series(1, 300) AS i, session_create('tr' || i || CASE i % 100 WHEN 50 THEN '-stuck' ELSE '' END, ttl => '1 second')"
);
ok( wait_until(
		sub { left('tr') eq 'tr150-stuck tr250-stuck tr50-stuck' }, 60),
	'a trigger that raises keeps no other session from being deleted');
ok(wait_until(sub { errors('sweep') =~ /P0001: never/ }),
	'and its message is told');

# Uses of sessions whose rows refuse them
my %token = map { $_ => create_session($node, $_) } qw(te1 te2-stuck te3);
value(
	"SET session_replication_role = replica; UPDATE user_sessions SET last_seen_at = last_seen_at - interval '1 hour' WHERE user_id LIKE 'te%'"
);
value(
	"BEGIN READ ONLY; SELECT count(*) FROM session_get('$token{$_}'); COMMIT")
  for sort keys %token;
ok( wait_until(
		sub {
			value(
				"SELECT string_agg(user_id, ' ' ORDER BY user_id) FROM user_sessions WHERE user_id LIKE 'te%' AND last_seen_at > now() - interval '30 min'"
			) eq 'te1 te3';
		}),
	'a use that is refused keeps no other from being written');
ok(wait_until(sub { errors('touches') =~ /P0001: never/ }), 'it is told');

# Findings of transactions that rolled back
foreach my $user ('fi1-stuck', 'fi2')
{
	my $token = create_session($node, $user);
	my $next = value(
		"SET session_replication_role = replica; SELECT session_token FROM session_refresh('$token', rotate => true)"
	);
	value(
		"BEGIN READ ONLY; SELECT count(*) FROM session_get('$next'); COMMIT");
	my ($status) = $node->psql('postgres',
		"SET session_replication_role = replica; BEGIN; SELECT status FROM session_refresh('$token'); ROLLBACK"
	);
}
ok( wait_until(
		sub {
			value(
				"SELECT revoked_at IS NOT NULL FROM user_sessions WHERE user_id = 'fi2'"
			) eq 't';
		}),
	'a finding that cannot be carried out keeps no other from it');
ok(wait_until(sub { errors('findings') =~ /P0001: never/ }), 'it is told');
value('DROP TRIGGER refuse ON user_sessions');
ok( wait_until(
		sub {
			value(
				"SELECT revoked_at IS NOT NULL FROM user_sessions WHERE user_id = 'fi1-stuck'"
			) eq 't';
		},
		60),
	'and it is carried out once nothing is in the way');
ok(wait_until(sub { left('tr') eq '' }, 60), 'as is the rest');

# A partition that cannot be dropped
value(
	q(INSERT INTO session_events (at, event) SELECT now() - i * interval '1 day', 'created' FROM generate_series(10, 30) AS i)
);
ok( wait_until(
		sub { value('SELECT count(*) FROM session_events_default') eq '0' },
		60),
	'there are old partitions');
my $oldest = value(
	q(SELECT min(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'session_events'::regclass AND inhrelid <> 'session_events_default'::regclass)
);
value("CREATE VIEW watched AS SELECT * FROM $oldest");
$node->append_conf('postgresql.conf',
	"session_manager.event_retention = '3d'");
$node->reload;
ok( wait_until(
		sub {
			value(
				"SELECT count(*) FROM session_events WHERE at < now() - interval '5 days'"
			) eq '1';
		},
		60),
	'a partition that cannot be dropped keeps no other from it');
ok(wait_until(sub { errors('partitions') =~ /2BP01: .*$oldest/ }),
	'it is told');
value("DROP VIEW watched");
ok( wait_until(
		sub {
			value(
				"SELECT count(*) FROM session_events WHERE at < now() - interval '5 days'"
			) eq '0';
		},
		60),
	'and it is dropped once nothing depends on it');

# Seals that cannot be moved to another key
value("SELECT session_create('se' || i) FROM generate_series(1, 5) AS i");
value(
	q(CREATE FUNCTION refuse_seal() RETURNS trigger LANGUAGE plpgsql AS
	$$BEGIN IF OLD.user_id = 'se3' AND NEW.key_id <> OLD.key_id THEN RAISE 'not this one'; END IF; RETURN NEW; END$$;
	CREATE TRIGGER refuse BEFORE UPDATE ON user_sessions FOR EACH ROW EXECUTE FUNCTION refuse_seal();)
);
value('SELECT session_key_generate()');
value('SELECT session_key_activate(2)');
ok( wait_until(
		sub {
			value(
				"SELECT string_agg(user_id, ' ') FROM user_sessions WHERE key_id <> 2"
			) eq 'se3';
		},
		60),
	'a seal that cannot be moved keeps no other from it');
ok(wait_until(sub { errors('resealing') =~ /P0001: not this one/ }),
	'it is told');
like(value("SELECT value FROM session_info() WHERE key = 'resealing'"),
	qr/^under way/, 'and re-sealing is not called done');
my $swept = stat_of('sweeps');
ok(wait_until(sub { stat_of('sweeps') > $swept + 1 }), 'passes go on');

# By hand
value('DROP TRIGGER refuse ON user_sessions');
$node->append_conf('postgresql.conf', "session_manager.databases = 'other'");
$node->reload;
ok( wait_until(
		sub {
			value("SELECT value FROM session_info() WHERE key = 'workers'")
			  =~ /^off/;
		}),
	'without workers');
value(
	"CREATE TABLE orders (session_id uuid REFERENCES user_sessions DEFERRABLE INITIALLY DEFERRED)"
);
value(
	"SELECT session_create('by hand' || i, ttl => '1 millisecond') FROM generate_series(1, 20) AS i"
);
value(
	"INSERT INTO orders SELECT session_id FROM user_sessions WHERE user_id = 'by hand7'"
);
my ($status, $stdout, $stderr) =
  $node->psql('postgres', 'SELECT sessions_deleted FROM session_cleanup()');
is($status, 0, 'session_cleanup() succeeds');
is($stdout, '19', 'deletes the others');
like($stderr, qr/WARNING:  session_manager could not delete/, 'and warns');
is(left('by hand'), 'by hand7', 'one is left');
value('DROP TABLE orders');
ok( wait_until(
		sub { value('SELECT sessions_deleted FROM session_cleanup()') eq '1' }
		,
		60),
	'a later call deletes it');

# Events that are refused
value(
	q(ALTER TABLE session_events ADD CONSTRAINT no_expired CHECK (event <> 'expired' OR user_id <> 'ev3'))
);
value(
	"SELECT session_create('ev' || i, ttl => '1 millisecond') FROM generate_series(1, 5) AS i"
);
($status) = $node->psql('postgres', 'SELECT session_cleanup()');
is($status, 0, 'session_cleanup() succeeds where an event is refused');
like(left('ev'), qr/^(ev3)?$/, 'and deletes the other sessions');
value('SELECT session_stats_reset()');
is(errors('sweep'), 'none', 'session_stats_reset() forgets the failures');
$node->stop;

done_testing();
