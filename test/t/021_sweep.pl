# What a worker does in a pass: dead sessions, partitions.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $node = new_node(
	'sweep',
	preload => 'session_manager',
	conf => qq(
session_manager.sweep_interval = 1s
session_manager.sweep_batch = 100
session_manager.sweep_pause = 5ms
session_manager.flush_interval = 1s
deadlock_timeout = 100ms
));

sub value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

# Dead in two ways, extended, revoked
value(
	"SELECT count(*) FROM generate_series(1, 350) AS i, session_create('short' || i, ttl => '500 milliseconds')"
);
# (in one statement, before they can expire by themselves)
my $extended = value(
	"WITH c AS MATERIALIZED (SELECT session_token FROM session_create('extended', ttl => '2 seconds'))
	SELECT c.session_token FROM c, session_refresh(c.session_token, ttl => '1 hour')"
);
value(
	"SELECT session_invalidate(session_token) FROM session_create('revoked', ttl => '1 second')"
);
ok(wait_until(sub { value('SELECT count(*) FROM user_sessions') == 1 }),
	'expired and revoked sessions go by themselves');
is( value(
		"SELECT event || ' ' || count(*) FROM session_events WHERE event IN ('expired', 'idle') GROUP BY event"
	),
	'expired 350',
	'each that expired with an event');
ok( wait_until(
		sub {
			value(
				"SELECT sweep_at > clock_timestamp() + interval '50 min' FROM user_sessions"
			) eq 't';
		}),
	'one that was extended is queued again at its deadline');
ok(live($node, $extended), 'and lives');
ok( wait_until(
		sub {
			value(
				"SELECT sessions_swept || ' ' || sessions_requeued FROM session_stats"
			) eq '351 1';
		}),
	'all of it is counted');
like(
	value("SELECT value FROM session_info() WHERE key = 'last_pass'"),
	qr/deleted, .* queued again in \d+ ms; next /,
	'and told by session_info');

# Idle
$node->append_conf('postgresql.conf',
	"session_manager.idle_timeout = 2s\nsession_manager.touch_interval = 0");
$node->reload;
my $idle = create_session($node, 'idle');
# (over one connection: to start psql may take as long as the timeout)
my $reader = connection($node);
my $busy = query($reader, "SELECT session_token FROM session_create('busy')");
my $end = time() + 5;
my $alive = 1;
while (time() < $end)
{
	# only ever recorded in shared memory
	$alive &&= query($reader,
		"BEGIN READ ONLY; SELECT count(*) FROM session_get('$busy'); COMMIT;")
	  eq '1';
	select(undef, undef, undef, 0.2);
}
ok($alive, 'a session lives for longer than the idle timeout by reads alone');
is(query($reader, "SELECT session_status('$busy')"),
	'active', 'and session_status says so');
$reader->quit;
ok( wait_until(sub { value("SELECT session_status('$idle')") eq 'unknown' }),
	'one that is not used is gone');
is( value(
		"SELECT count(*) FROM session_events WHERE event = 'idle' AND user_id = 'idle'"
	),
	1,
	'with an event of its own');
ok( wait_until(sub { value("SELECT session_status('$busy')") eq 'unknown' }),
	'and the busy one follows once it is left alone');
$node->append_conf('postgresql.conf', "session_manager.idle_timeout = 0");
$node->reload;

# Partitions: made ahead, the default one emptied, the old ones dropped
ok( wait_until(
		sub {
			value(
				"SELECT count(*) FROM pg_inherits WHERE inhparent = 'session_events'::regclass"
			) == 3;
		}),
	'this month and the next have partitions');
is(value('SELECT count(*) FROM session_events_default'),
	0, 'the default one is empty');
value(
	q(INSERT INTO session_events (at, event) VALUES (now() - interval '40 days', 'created'), (now() - interval '200 days', 'created'))
);
ok( wait_until(
		sub { value('SELECT count(*) FROM session_events_default') == 0 }),
	'what comes into it is moved or dropped');
is( value(
		"SELECT count(*) FROM session_events WHERE at < now() - interval '30 days'"
	),
	1,
	'according to its age');
$node->append_conf('postgresql.conf',
	"session_manager.event_retention = '1d'");
$node->reload;
ok( wait_until(
		sub {
			value(
				"SELECT count(*) FROM session_events WHERE at < now() - interval '30 days'"
			  ) == 0
			  && value(
				"SELECT count(*) FROM pg_inherits WHERE inhparent = 'session_events'::regclass"
			  ) == 3;
		}),
	'a partition past retention is dropped');

# Beside traffic
my $script = $node->basedir . '/traffic.sql';
write_file(
	$script, q(
\set user random(1, 20)
SELECT session_token AS token FROM session_create('user' || :user, '{"n": 1}', ttl => '1 second')
\gset
SELECT count(*) FROM session_get(':token');
SELECT count(*) FROM session_update(':token', '{"n": 2}');
SELECT status FROM session_refresh(':token', rotate => true, ttl => '100 milliseconds');
SELECT session_invalidate_all('user' || :user, reason => 'traffic') FROM (SELECT random() < 0.1) AS r(now) WHERE now;
), 0644);
my ($status) = finish_all(
	in_parallel(
		$node,
		{
			cmd => [
				'pgbench', '-n', '-f', $script,
				'-c', '8', '-j', '2',
				'-T', '8', 'postgres'
			],
			out => $node->basedir . '/traffic.log'
		}));
is($status, 0, 'traffic goes on beside the sweep')
  or diag(slurp_file($node->basedir . '/traffic.log'));
ok( wait_until(
		sub {
			value(
				"SELECT count(*) FROM user_sessions WHERE user_id LIKE 'user%'"
			) == 0;
		}),
	'which leaves nothing behind');
unlike(slurp_file($node->logfile),
	qr/deadlock|ERROR/, 'without a deadlock or an error');

# A new interval does not wait for the end of the old one.
sub interval
{
	my ($interval) = @_;
	$node->append_conf('postgresql.conf',
		"session_manager.sweep_interval = '$interval'");
	$node->reload;
	return;
}
interval('1h');
wait_until(
	sub {
		value(
			"SELECT next_pass_at > now() + interval '30 min' FROM session_stats"
		) eq 't';
	});
interval('1s');
my $sweeps = value('SELECT sweeps FROM session_stats');
ok(wait_until(sub { value('SELECT sweeps FROM session_stats') > $sweeps }),
	'a shorter interval holds at once');
# Two who maintain the partitions at once do not trip over each other.
$node->append_conf('postgresql.conf',
	"session_manager.databases = 'postgres'");
$node->reload;
$node->safe_psql('postgres', 'CREATE DATABASE fresh');
install_extension($node, 'fresh');
my $first = connection($node, 'fresh');
query($first, 'BEGIN; SELECT session_cleanup();');
my ($second) = in_parallel(
	$node,
	{
		cmd => [
			'psql', '-XAtq',
			'-v', 'ON_ERROR_STOP=1',
			'-c', 'SELECT session_cleanup()',
			'fresh'
		],
		out => $node->basedir . '/second.log'
	});
select(undef, undef, undef, 0.1);
query($first, 'COMMIT');
my ($exit) = finish_all($second);
is($exit, 0, 'a cleanup beside another one ends well')
  or diag(slurp_file($node->basedir . '/second.log'));
is( $node->safe_psql(
		'fresh',
		"SELECT count(*) FROM pg_inherits WHERE inhparent = 'session_events'::regclass"
	),
	3,
	'and each partition is made once');
$first->quit;
$node->stop;

done_testing();
