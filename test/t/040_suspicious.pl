# New devices and guessed tokens: large users, many partitions, several
# connections, transactions that roll back, a standby.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

# A token that belongs to no session, and many of them in SQL
my $helpers = q(
	CREATE FUNCTION wrong(i int) RETURNS text
	LANGUAGE sql AS $$ SELECT 'sm1_' || translate(encode(sha256(i::text::bytea) || substr(sha256('guess'), 1, 16), 'base64'), E'+/\n', '-_') $$;
	CREATE FUNCTION guess(ip inet, first int, last int) RETURNS bigint
	LANGUAGE sql AS $$ SELECT count(g.session_id) FROM generate_series(first, last) AS i, session_get(wrong(i), ip) AS g $$;
);

my $node = new_node(
	'suspicious',
	preload => 'session_manager',
	streaming => 1,
	conf => q(
session_manager.sweep_interval = 1h
session_manager.event_partition = week
fsync = off
));

sub value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

# Is a login of a new device?
sub login
{
	my ($user, $ip, $agent, $before) = @_;
	return value(($before // '')
		. "SELECT new_device FROM session_create('$user', ip => '$ip', user_agent => '$agent')"
	);
}

# How many entries of indexes whose names match a login reads
sub entries
{
	my ($indexes, @login) = @_;
	my $sum =
	  "SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_user_indexes WHERE indexrelname ~ '$indexes'";

	# a connection that is about to end has not yet reported what it read
	wait_until(
		sub {
			value(
				"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
			) eq '0';
		},
		30);
	my $before = value($sum);
	my $new = login(@login, 'SELECT pg_stat_force_next_flush();');
	$new =~ s/\s//g;
	my $after = $before;
	wait_until(sub { $after = value($sum); $after > $before }, 10);
	return ($new, $after - $before);
}

sub guessing
{
	my ($ip) = @_;
	return value(
		"SELECT count(*) FROM session_events WHERE event = 'token_guessing' AND ip << '$ip/24'"
	);
}

ok(first_pass($node), 'the first pass is over');
value($helpers);

# A user with 10,000 sessions, all of one device but the newest
value(
	q(
	SELECT count(*) FROM generate_series(1, 10000) AS i,
		session_create('many', jsonb_build_object('i', i), ip => '192.0.2.1', user_agent => 'one'))
);
my ($new, $read) =
  entries('user_sessions_user_id_idx', 'many', '192.0.2.9', 'two');
is($new, 'f', 'a user with 10,000 sessions is known');
cmp_ok($read, '<=', 2, "by the first of them: $read");
value(
	q(SELECT count(*) FROM session_create('many', ip => '198.51.100.1', user_agent => 'other'))
);
($new, $read) =
  entries('user_sessions_user_id_idx', 'many', '203.0.113.1', 'three');
is($new, 't', 'a new device is told');
cmp_ok($read, '<=', 101, "from a part of them: $read");
is(login('many', '198.51.100.2', 'four'), 'f', 'the newest are in it');

# A user with 100,000 events over twelve weeks, most of which tell of no client,
# and no session; the oldest login is the one from 10.9.0.1
value(
	q(
	INSERT INTO session_events (at, session_id, user_id, event, ip, user_agent, detail)
	SELECT now() - i * interval '73 s', gen_random_uuid(), 'busy',
		CASE WHEN i % 10 = 0 THEN 'created' ELSE 'updated' END,
		CASE WHEN i % 10 = 0 THEN '192.0.2.1'::inet END,
		CASE WHEN i % 10 = 0 THEN 'one' END,
		CASE WHEN i % 10 > 0 THEN '{"version": 1}'::jsonb END
	FROM generate_series(1, 100000) AS i;
	INSERT INTO session_events (at, session_id, user_id, event, ip, user_agent)
	SELECT now() - interval '80 days', gen_random_uuid(), u, 'created', '10.9.0.1', 'old'
	FROM unnest('{busy, seldom}'::text[]) AS u));
ok( wait_until(
		sub {
			value('SELECT events_moved FROM session_cleanup()') == 0;
		},
		120),
	'maintenance moves them');
cmp_ok(
	value(
		"SELECT count(DISTINCT tableoid) FROM session_events WHERE user_id = 'busy'"
	),
	'>=', 12,
	'into partitions');
value('VACUUM ANALYZE');
($new, $read) =
  entries('^session_events.*user_id_at_idx', 'busy', '192.0.2.9', 'two');
is($new, 'f', 'a user with 100,000 events is known');
cmp_ok($read, '<=', 12, "by the newest of them: $read");
value("DELETE FROM user_sessions WHERE user_id = 'busy'");
($new, $read) =
  entries('^session_events.*user_id_at_idx', 'busy', '203.0.113.1', 'three');
is($new, 't', 'a new device is told');
cmp_ok($read, '<=', 301, "from a part of them: $read");
value("DELETE FROM user_sessions WHERE user_id = 'busy'");
is(login('busy', '10.9.0.1', 'four'),
	't', 'what lies behind them is not seen');
is(login('seldom', '10.9.0.2', 'five'),
	'f', 'what few events are in front of is, in the oldest partition');
value("DELETE FROM user_sessions WHERE user_id = 'seldom'");

# A partition that is locked does not hold up a login.
my $oldest = value(
	"SELECT tableoid::regclass FROM session_events WHERE user_id = 'seldom' ORDER BY at LIMIT 1"
);
my $locker = connection($node);
query($locker, "BEGIN; LOCK TABLE $oldest IN ACCESS EXCLUSIVE MODE");
quick(
	$node,
	'a login does not wait for a partition',
	"SELECT new_device FROM session_create('seldom', ip => '203.0.113.1', user_agent => 'six')"
);
query($locker, 'ROLLBACK');

# Two logins at once
value(
	"SELECT session_create('twin', ip => '192.0.2.1', user_agent => 'one')");
my @logins = map { connection($node) } 1 .. 2;
foreach my $login (@logins)
{
	query($login, 'BEGIN');
	is( query(
			$login,
			"SET search_path = public; SELECT new_device FROM session_create('twin', ip => '198.51.100.1', user_agent => 'two')"
		),
		't',
		'two logins at once are both of a new device');
}
query($_, 'COMMIT') foreach @logins;
is(login('twin', '198.51.100.1', 'two'), 'f', 'which is known after them');
is( value(
		"SELECT count(*) FROM session_events WHERE user_id = 'twin' AND event = 'new_device'"
	),
	2,
	'each left its event');

# An application can end exactly the session that was reported.
is( value(
		"SELECT session_invalidate_id(session_id, 'twin') FROM session_events WHERE user_id = 'twin' AND event = 'new_device' LIMIT 1"
	),
	'twin',
	'the session that the event names can be ended');

# What is counted in one backend is counted in all.
query($logins[0], "SELECT guess('10.1.0.1', 1, 70)");
is(guessing('10.1.0.0'), 0, 'few tokens');
query($logins[1], "SELECT guess('10.1.0.2', 71, 140)");
is(guessing('10.1.0.0'), 1, 'and few from another connection are many');
query($logins[0], "SELECT guess('10.1.0.3', 141, 1000)");
is(guessing('10.1.0.0'), 1, 'of which there is one event');
is(value('SELECT token_guessing, new_devices > 0 FROM session_stats'),
	'1|t', 'both are counted');

# Whatever becomes of the transaction
value("BEGIN; SELECT guess('10.2.0.1', 1, 200); ROLLBACK");
ok( wait_until(sub { guessing('10.2.0.0') == 1 }),
	'a rollback does not undo the event');
like(
	value(
		"SELECT detail::text || coalesce(session_id::text, '') FROM session_events WHERE event = 'token_guessing' AND ip = '10.2.0.1'"
	),
	qr(^\{"count": \d+, "network": "10\.2\.0\.0/24"\}$),
	'which is the same');
value("BEGIN READ ONLY; SELECT guess('10.3.0.1', 1, 200); COMMIT");
ok( wait_until(sub { guessing('10.3.0.0') == 1 }),
	'a read-only transaction leaves it to a worker');
value("SELECT guess('10.2.0.1', 201, 400), guess('10.3.0.1', 201, 400)");
is(guessing('10.2.0.0') + guessing('10.3.0.0'),
	2, 'there is no second one in either case');

# On a standby nothing is counted or written.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
is($standby->safe_psql('postgres', "SELECT guess('10.4.0.1', 1, 1000)"),
	0, 'a standby refuses tokens');
$standby->promote;
is( $standby->safe_psql(
		'postgres',
		"SELECT guess('10.4.0.1', 1001, 1050); SELECT count(*) FROM session_events WHERE event = 'token_guessing' AND ip << '10.4.0.0/16'"
	),
	"0\n0",
	'and has not counted them');
$standby->safe_psql('postgres', "SELECT guess('10.4.0.1', 1051, 1200)");
ok( wait_until(
		sub {
			$standby->safe_psql('postgres',
				"SELECT count(*) FROM session_events WHERE event = 'token_guessing' AND ip << '10.4.0.0/16'"
			) == 1;
		}),
	'a promoted one counts');
$standby->stop;

$_->quit foreach $locker, @logins;
# the process that served the standby complains when that leaves to be promoted
(my $log = slurp_file($node->logfile)) =~
  s/standby FATAL:  connection to client lost//g;
unlike($log, qr/PANIC|FATAL|deadlock/, 'nothing went wrong');
$node->stop;

# Without shared memory each backend counts for itself, and a record that is
# lost with its transaction is made again.
my $plain = new_node('plain', conf => 'fsync = off');
$plain->safe_psql('postgres', $helpers);
my $count =
  "SELECT count(*) FROM session_events WHERE event = 'token_guessing'";
is( $plain->safe_psql(
		'postgres', qq(
		BEGIN; SELECT guess('10.1.0.1', 1, 200); ROLLBACK; $count;
		BEGIN; SAVEPOINT s; SELECT guess('10.1.0.1', 1, 200); ROLLBACK TO s; COMMIT; $count;
		BEGIN READ ONLY; SELECT guess('10.1.0.1', 1, 200); COMMIT; $count;
		BEGIN; SAVEPOINT s; SELECT guess('10.1.0.1', 1, 200); RELEASE s; COMMIT; $count;
		SELECT guess('10.1.0.1', 1, 200); $count;
		SELECT (detail ->> 'count')::int > 600 FROM session_events WHERE event = 'token_guessing')
	),
	"0\n0\n0\n0\n0\n0\n0\n1\n0\n1\nt",
	'without preloading, a record that is rolled back is made again');
is( $plain->safe_psql('postgres', "SELECT guess('10.1.0.1', 1, 50); $count"),
	"0\n1",
	'and another backend counts for itself');
is( $plain->safe_psql(
		'postgres', q(
		SELECT new_device FROM session_create('ann', ip => '192.0.2.1', user_agent => 'one');
		SELECT new_device FROM session_create('ann', ip => '198.51.100.1', user_agent => 'two');
		SELECT event FROM session_events WHERE user_id = 'ann' ORDER BY event_id)
	),
	"f\nt\ncreated\ncreated\nnew_device",
	'new devices are told there as well');
$plain->stop;

done_testing();
