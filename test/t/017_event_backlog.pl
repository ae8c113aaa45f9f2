# A backlog of events in the default partition: it is moved in bounded steps
# that nobody has to wait for, each event is there once at every moment, and
# neither a crash nor a small lock table is in the way.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

# The most that one step moves.
my $step = 10_000;

my $node = new_node(
	'backlog',
	preload => 'session_manager',
	conf => qq(
session_manager.databases = 'nowhere'
session_manager.sweep_interval = 1s
max_locks_per_transaction = 10
));

sub value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

# Events of this month, more than a step on each day of it, and of the 40 days
# before, in no order.
sub make_backlog
{
	my ($n) = @_;
	value(
		qq(INSERT INTO session_events (at, user_id, event)
		SELECT CASE WHEN i % 2 = 0 THEN now() - (now() - month) * share ELSE month - interval '40 days' * share END,
			'backlog', 'created'
		FROM generate_series(1, $n) AS i,
			LATERAL (SELECT (i * 7919 % $n + 1) / ($n + 2.0)) AS s (share),
			date_trunc('month', now() AT TIME ZONE 'UTC') AS local,
			LATERAL (SELECT local AT TIME ZONE 'UTC') AS m (month)));
	return;
}

my $all =
  q(SELECT count(*), count(DISTINCT event_id), sum(event_id) FROM session_events WHERE user_id = 'backlog');
my $left = 'SELECT count(*) FROM session_events_default';

# A call of session_cleanup moves a step's worth, however much there is.
make_backlog(3 * $step);
my $expected = value($all);
my $moved = value('SELECT events_moved FROM session_cleanup()');
cmp_ok($moved, '>', 0, 'a call moves events');
cmp_ok($moved, '<=', $step, 'but not more than a step');
is(value($all), $expected, 'each event is there once');
ok( value(
		"SELECT count(*) > 0 FROM pg_inherits WHERE inhparent = 'session_events'::regclass
	AND inhrelid <> 'session_events_default'::regclass"),
	'there are partitions');
create_session($node, 'now');
is( value(
		"SELECT tableoid = 'session_events_default'::regclass FROM session_events WHERE user_id = 'now'"
	),
	'f',
	'what happens from now on goes to a partition at once');
is(value('SELECT events_moved FROM session_cleanup(100, 1)'),
	100, 'max_batches bounds it');
is(value('SELECT events_moved FROM session_cleanup(1, 1)'),
	100, 'with a hundred for the least');

# Attaching a partition reads no table: what says that there is nothing to
# be found is known from the index.
my ($status, $stdout, $stderr) = $node->psql('postgres',
	'SET client_min_messages = debug1; SELECT events_moved FROM session_cleanup()'
);
is($stdout, $step, 'another step');
like(
	$stderr,
	qr/partition constraint for table "session_events_\d+\w*" is implied by existing constraints/,
	'the partition is not read');
like(
	$stderr,
	qr/updated partition constraint for default partition "session_events_default" is implied by existing constraints/,
	'nor is the default partition');
is( value(
		"SELECT count(*) FROM pg_constraint WHERE conname = 'session_events_proven'"
	),
	0,
	'the constraints for that are gone');

# Who reads the events holds the step up, but nobody else.
my $reader = connection($node);
query($reader, 'BEGIN; SELECT count(*) FROM session_events');
my $before = value($left);
($status, $stdout, $stderr) =
  $node->psql('postgres', 'SELECT events_moved FROM session_cleanup()');
is($stdout, 0, 'a step gives way to a reader');
like(
	$stderr,
	qr/NOTICE:  could not change the partitions of session_events because of concurrent traffic/,
	'and says so');
is(value($left), $before, 'it left everything where it was');
ok(create_session($node, 'beside'), 'a login does not wait for either');
query($reader, 'COMMIT');

# An old snapshot finds each event once.
query($reader, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
cmp_ok(value('SELECT events_moved FROM session_cleanup()'),
	'>', 0, 'a snapshot alone is not in the way');
is(query($reader, $all), $expected, 'and sees each event once');
query($reader, 'COMMIT');
$reader->quit;

# Until nothing is moved any more
my $calls = 0;
$calls++
  while value('SELECT events_moved FROM session_cleanup()') > 0
  && $calls < 20;
is(value($left), 0, 'in the end the default partition is empty');
is(value($all), $expected, 'and each event is there once');
is( value(
		q(SELECT count(*) FROM pg_inherits WHERE inhparent = 'session_events'::regclass
		AND inhrelid <> 'session_events_default'::regclass)),
	value(
		q(SELECT 2 + count(DISTINCT date_trunc('month', at AT TIME ZONE 'UTC')) FROM session_events WHERE user_id = 'backlog')
	),
	'one partition for each month of the backlog, this month\'s second part, and the next month'
);
# Changed columns: what is moved keeps its values.
value(
	q(ALTER TABLE session_events ADD COLUMN gone int; ALTER TABLE session_events DROP COLUMN gone;
	DO $$
	DECLARE
		p regclass;
	BEGIN
		FOR p IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'session_events'::regclass AND inhrelid <> 'session_events_default'::regclass LOOP
			EXECUTE format('DROP TABLE %s', p);
		END LOOP;
	END
	$$;
	INSERT INTO session_events (at, user_id, event, detail) VALUES (now() - interval '45 days', 'columns', 'created', '{"a": 1}'))
);
value('SELECT session_cleanup()');
is( value(
		"SELECT event, detail, tableoid = 'session_events_default'::regclass FROM session_events WHERE user_id = 'columns'"
	),
	'created|{"a": 1}|f',
	'an event keeps its columns where a column has been dropped');
value(q(DROP EXTENSION session_manager));
install_extension($node, 'postgres');

# More events of one time than a step moves cannot be told apart.
value(
	"INSERT INTO session_events (at, user_id, event) SELECT date_trunc('month', now()) - interval '10 days', 'same', 'created' FROM generate_series(1, $step + 1)"
);
value(
	"INSERT INTO session_events (at, user_id, event) VALUES (date_trunc('month', now()) - interval '9 days', 'other', 'created')"
);
value('SELECT session_cleanup()') foreach 1 .. 3;
is( value(
		"SELECT user_id, count(*) FROM session_events_default GROUP BY user_id"
	),
	'same|' . ($step + 1),
	'more than a step of one time stay in the default partition, the others do not'
);
value(q(SET session_manager.event_retention = '1d'; SELECT session_cleanup()))
  foreach 1 .. 3;
is(value($left), 0, 'and go with their retention, in steps');

# Workers do the same, beside logins and readers, and after a crash.
value('DROP EXTENSION session_manager');
install_extension($node, 'postgres');
make_backlog(8 * $step);
$expected = value($all);
$node->append_conf('postgresql.conf', "session_manager.databases = ''");
$node->reload;
my ($readings, $wrong) = (0, 0);
my $watch = sub {
	my ($enough) = @_;
	return wait_until(
		sub {
			$readings++;
			$wrong++ unless value($all) eq $expected;
			create_session($node, 'beside');
			return value($left) <= $enough;
		},
		180);
};
ok($watch->(6 * $step), 'a worker moves events');
$node->stop('immediate');
$node->start;
is(value($all), $expected, 'after a crash each event is there once');
ok($watch->(0), 'a worker moves them all');
is($wrong, 0,
	"each event was there once whenever it was looked for ($readings times)");

# The database can be dropped meanwhile.
$node->safe_psql('postgres', 'CREATE DATABASE doomed');
install_extension($node, 'doomed');
$node->safe_psql(
	'doomed', qq(INSERT INTO session_events (at, user_id, event)
	SELECT now() - i * interval '1 s', 'backlog', 'created' FROM generate_series(1, 20 * $step) AS i)
);
ok(wait_until(sub { $node->safe_psql('doomed', $left) < 20 * $step }),
	'a worker is moving events');
is($node->psql('postgres', 'DROP DATABASE doomed'),
	0, 'DROP DATABASE does not wait for the end of that');

unlike(
	slurp_file($node->logfile),
	qr/out of shared memory|PANIC|TRAP/,
	'nothing ran out');
$node->stop;

done_testing();
