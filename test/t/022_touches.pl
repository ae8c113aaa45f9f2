# Uses of sessions, recorded in shared memory and written by a worker.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $node = new_node(
	'touches',
	preload => 'session_manager',
	streaming => 1,
	conf => qq(
session_manager.sweep_interval = 1h
session_manager.flush_interval = 1h
session_manager.touch_interval = 0
session_manager.touch_slots = 1024
autovacuum = off
));

sub value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

sub flush_soon
{
	$node->append_conf('postgresql.conf',
		'session_manager.flush_interval = 1s');
	$node->reload;
	return wait_until(
		sub { value('SELECT touches_pending FROM session_stats') == 0 });
}

sub flush_late
{
	$node->append_conf('postgresql.conf',
		'session_manager.flush_interval = 1h');
	$node->reload;
	return;
}

# End the postmaster at once, and wait for what it leaves behind.
sub kill_server
{
	my $pid =
	  (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
	my @children = split /\n/, `ps -o pid= --ppid $pid`;
	$node->kill9;
	return wait_until(
		sub {
			!grep { kill 0, $_ } $pid, @children;
		});
}

ok(first_pass($node), 'the first pass is over');

# Reads that never write
my $token =
  create_session($node, 'ann', "ip => '192.0.2.1', user_agent => 'one'");
my $reader = connection($node);
my $wal = qq(
	SELECT pg_current_wal_insert_lsn() AS before \\gset
	SELECT count(*) FROM generate_series(1, 500) AS i, LATERAL session_get('$token', '192.0.2.9', 'two', touch => i > 0) \\gset
	SELECT pg_current_wal_insert_lsn() - :'before'::pg_lsn;);
query($reader, $wal);    # the first read looks at the catalogues
is(query($reader, $wal),
	0, 'reads, each of them to be recorded, write no WAL');
$reader->quit;
is( value(
		'SELECT host(ip), user_agent, last_seen_at = created_at FROM user_sessions'
	),
	'192.0.2.1|one|t',
	'nor the row');
is(value("SELECT last_seen_at > created_at FROM session_list('ann')"),
	't', 'what is recorded is seen all the same');
is(value('SELECT touches_buffered FROM session_stats'), 1000, 'and counted');
is( value(
		"BEGIN READ ONLY; SELECT count(*) FROM session_get('$token'); COMMIT"
	),
	1,
	'in a read-only transaction');
is(value('SELECT touches_buffered FROM session_stats'), 1001, 'as well');

# A clean restart keeps it, a worker writes it
$node->restart;
is(value("SELECT last_seen_at > created_at FROM session_list('ann')"),
	't', 'a clean restart loses none');
ok(flush_soon(), 'a worker writes it');
is( value(
		'SELECT host(ip), user_agent, last_seen_at > created_at FROM user_sessions'
	),
	'192.0.2.9|two|t',
	'address and user agent included');
is( value(
		'SELECT n_tup_hot_upd, n_tup_upd FROM pg_stat_user_tables WHERE relname = \'user_sessions\''
	),
	'1|1',
	'by one HOT update');
flush_late();

# A crash loses the last-seen time, never a session.  A worker that was at work
# may have written it still.
my $lost = 'f';
for (1 .. 5)
{
	value("SELECT count(*) FROM session_get('$token')");
	my $seen = value('SELECT last_seen_at FROM user_sessions');
	kill_server();
	$node->start;
	ok(live($node, $token), 'a crash loses no session');
	$lost = value("SELECT last_seen_at = '$seen' FROM session_list('ann')");
	ok(first_pass($node), 'the first pass is over');
	last if $lost eq 't';
}
is($lost, 't', 'only when it was used last');

# The first use of a rotated token, told by shared memory alone
$node->append_conf('postgresql.conf', 'session_manager.rotation_grace = 0');
$node->reload;
my $old = create_session($node, 'bea');
my $new =
  value("SELECT session_token FROM session_refresh('$old', rotate => true)");
value("BEGIN READ ONLY; SELECT count(*) FROM session_get('$new'); COMMIT");
is( value(
		"SELECT successor_used_at IS NULL FROM user_sessions WHERE user_id = 'bea'"
	),
	't',
	'the use of a new token is not in the table yet');
is(value("SELECT status FROM session_refresh('$old')"),
	'reused', 'and yet the old one is a replay');
my $one = create_session($node, 'cat');
my $two =
  value("SELECT session_token FROM session_refresh('$one', rotate => true)");
value("BEGIN READ ONLY; SELECT count(*) FROM session_get('$two'); COMMIT");
my $three =
  value("SELECT session_token FROM session_refresh('$two', rotate => true)");
is(value("SELECT status FROM session_refresh('$two')"),
	'rotated', 'a use before a rotation is none after it');
# A rotation that is rolled back, with the first use of its token, takes none
# from the one before
foreach my $undo (0, 1)
{
	my $stolen = create_session($node, "flo$undo");
	my $used = value(
		"SELECT session_token FROM session_refresh('$stolen', rotate => true)"
	);
	value("SELECT count(*) FROM session_get('$used')");
	value(
		"BEGIN;\nSELECT session_token AS next FROM session_refresh('$used', rotate => true) \\gset\nSELECT count(*) FROM session_get(:'next');\nROLLBACK"
	) if $undo;
	is( value(
			"SELECT status FROM session_refresh('$stolen', rotate => true)"),
		'reused',
		'a replay is known to be one');
}
my $first = create_session($node, 'eve');
my $second = value(
	"SELECT session_token FROM session_refresh('$first', rotate => true)");
value("BEGIN READ ONLY; SELECT count(*) FROM session_get('$second'); COMMIT");

# Full
my $pending = value('SELECT touches_pending FROM session_stats');
value('SELECT session_stats_reset()');
value(
	q(CREATE TABLE crowd AS SELECT session_token AS token FROM generate_series(1, 1600) AS i, session_create('crowd' || i))
);
value('SELECT count(*) FROM crowd, session_get(crowd.token)');
my ($buffered, $fallback, $direct) = split /\|/,
  value(
	'SELECT touches_buffered, touches_fallback, touches_direct FROM session_stats'
  );
ok($buffered > 0 && $buffered <= 1024, "slots hold $buffered");
is($buffered + $fallback, 1600, 'the rest falls back');
is($direct, $fallback, 'to the table');
is( value(
		"SELECT count(*) FROM crowd, session_list((SELECT user_id FROM session_get(crowd.token, touch => false))) AS l WHERE l.last_seen_at > l.created_at"
	),
	1600,
	'and none is lost');
ok(flush_soon(), 'room is made');
is( value(
		"SELECT count(*) FROM user_sessions WHERE user_id LIKE 'crowd%' AND last_seen_at > created_at"
	),
	1600,
	'by writing');
is( value('SELECT touches_flushed FROM session_stats'),
	$buffered + $pending,
	'what was recorded, once');
is( value(
		"SELECT string_agg(user_id || (successor_used_at IS NOT NULL), ' ' ORDER BY user_id) FROM user_sessions WHERE user_id IN ('cat', 'eve')"
	),
	'catfalse evetrue',
	'and the use of a new token where there was one');
is(value("SELECT status FROM session_refresh('$first')"),
	'reused', 'so that its old one is a replay');
flush_late();

# A session that somebody is writing to is written later
my $dan = create_session($node, 'dan');
my $holder = connection($node);
query($holder, "BEGIN; SELECT session_update('$dan', '{\"n\": 1}');");
value("SELECT count(*) FROM session_get('$dan')");
$node->append_conf('postgresql.conf', 'session_manager.flush_interval = 1s');
$node->reload;
sleep(3);
is(value('SELECT touches_pending FROM session_stats'),
	1, 'a locked session is passed over');
query($holder, 'ROLLBACK');
ok( wait_until(
		sub {
			value(
				"SELECT last_seen_at > created_at FROM user_sessions WHERE user_id = 'dan'"
			) eq 't';
		}),
	'and written when it is free');
$holder->quit;
flush_late();

# On a standby nothing is recorded, which is counted
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is( $standby->safe_psql(
		'postgres', "SELECT count(*) FROM session_get('$token')"),
	1,
	'a standby reads');
is( $standby->safe_psql(
		'postgres',
		'SELECT touches_dropped, touches_buffered FROM session_stats'),
	'1|0',
	'and drops the touch');
like(
	$standby->safe_psql(
		'postgres', "SELECT value FROM session_info() WHERE key = 'workers'"),
	qr/standby/,
	'no worker runs there');
is( $standby->safe_psql(
		'postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'session_manager%'"
	),
	0,
	'nor the launcher');
$standby->promote;
my $promoted = $standby->safe_psql('postgres', 'SELECT clock_timestamp()');
ok( wait_until(
		sub {
			$standby->safe_psql('postgres',
				"SELECT value FROM session_info() WHERE key = 'workers'") =~
			  /^on/;
		}),
	'after its promotion they are at work');
ok(first_pass($standby), 'a pass ends');
is( $standby->safe_psql(
		'postgres',
		"SELECT last_pass_at < timestamptz '$promoted' + interval '5 s' FROM session_stats WHERE last_pass_at IS NOT NULL"
	),
	't',
	'within five seconds');
$standby->stop;
$node->stop;

done_testing();
