# Workers: one for each database that has the extension, found by itself, in
# nobody's way.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;
use Time::HiRes qw(time);

my $databases = 50;
my $node = new_node(
	'workers',
	preload => 'session_manager',
	conf => qq(
session_manager.sweep_interval = 1s
session_manager.event_partition = month
max_worker_processes = 8
));

# The number of passes that have looked for dead sessions in a database.
sub sweeps
{
	my ($database) = @_;
	return $node->safe_psql('postgres',
		"SELECT coalesce(max(sweeps), 0) FROM session_stats WHERE database_name = '$database'"
	);
}

sub info
{
	my ($key, $database) = @_;
	return $node->safe_psql($database // 'postgres',
		"SELECT value FROM session_info() WHERE key = '$key'");
}

ok(first_pass($node), 'a worker looks after the database');
like(info('workers'), qr/^on/, 'session_info says so');
is( $node->safe_psql(
		'postgres',
		"SELECT backend_type FROM pg_stat_activity WHERE backend_type LIKE 'session_manager%' AND datname IS NULL"
	),
	'session_manager launcher',
	'the launcher is in no database');

# A database with a dead session, and copies of it
$node->safe_psql('postgres', 'CREATE DATABASE d1');
install_extension($node, 'd1');
$node->safe_psql('d1',
	"SELECT session_create('ann', ttl => '1 millisecond')");
ok( wait_until(
		sub {
			$node->safe_psql('d1', 'SELECT count(*) FROM user_sessions') == 0;
		}),
	'a database that gets the extension is found, and swept');
$node->safe_psql('d1', "SELECT session_create('bea', ttl => '1 hour')");
$node->safe_psql('d1',
	q(UPDATE user_sessions SET expires_at = clock_timestamp(), sweep_at = clock_timestamp() + interval '2 seconds')
);
# What a copy takes that no worker is in the way of comes on top.
my $copy = (timed($node, 'CREATE DATABASE unserved TEMPLATE template0'))[1];
$node->safe_psql('postgres', 'DROP DATABASE unserved');
quick(
	$node,
	"database d$_ is copied while workers run",
	"CREATE DATABASE d$_ TEMPLATE d1",
	undef, 3 * $copy) for 2 .. $databases;
ok( wait_until(
		sub {
			my $left = 0;
			$left +=
			  $node->safe_psql("d$_", 'SELECT count(*) FROM user_sessions')
			  for 1 .. $databases;
			return $left == 0;
		},
		60),
	'every copy is found and swept without a call of a function');

# While they are all being swept
quick($node, "database d$_ is renamed", "ALTER DATABASE d$_ RENAME TO e$_")
  for 2 .. 6;
quick($node, "database e$_ is dropped", "DROP DATABASE e$_") for 2 .. 6;
quick($node, "database d$_ is dropped", "DROP DATABASE d$_")
  for 7 .. $databases;
quick($node, 'the copied one as well', 'DROP DATABASE d1');

# DROP EXTENSION while workers run
$node->safe_psql('postgres', 'CREATE DATABASE again');
for my $round (1 .. 20)
{
	install_extension($node, 'again');
	my ($status, $stdout, $stderr) = $node->psql('again',
		"SELECT session_create('ann', ttl => '1 millisecond'); DROP EXTENSION session_manager;"
	);
	is($stderr, '', "round $round: the extension is dropped beside a worker");
}
# while one is in the middle of a batch, with more to come
$node->safe_psql(
	'again', q(
	ALTER DATABASE again SET session_manager.sweep_batch = 2;
	CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.2); RETURN OLD; END';)
);
for my $round (1 .. 3)
{
	install_extension($node, 'again');
	$node->safe_psql(
		'again', q(
		CREATE TRIGGER dawdle BEFORE DELETE ON user_sessions FOR EACH ROW EXECUTE FUNCTION dawdle();
		SELECT session_create('ann', ttl => '1 millisecond') FROM generate_series(1, 6);)
	);
	ok( wait_until(
			sub {
				$node->safe_psql('again',
					"SELECT count(*) FROM pg_stat_activity WHERE datname = 'again' AND backend_type = 'session_manager worker' AND wait_event = 'PgSleep'"
				) > 0;
			}),
		"round $round: a worker is deleting");
	my ($status, $stdout, $stderr) =
	  $node->psql('again', 'DROP EXTENSION session_manager');
	is($stderr, '', "round $round: the extension is dropped all the same");
}
$node->safe_psql('again', 'ALTER DATABASE again RESET ALL');
# an old connection is not what stands in the way of a new extension
my $connection = connection($node, 'again');
for my $round (1 .. 3)
{
	query($connection,
		"CREATE EXTENSION session_manager; SELECT session_key_add(1);");
	query($connection,
		"SELECT session_create('ann', ttl => '1 millisecond')");
	ok( wait_until(
			sub {
				query($connection, 'SELECT count(*) FROM user_sessions') eq
				  '0';
			}),
		"round $round: made in an open connection, it is swept");
	query($connection, 'DROP EXTENSION session_manager');
}
$connection->quit;

# The extension at another version than the library
install_extension($node, 'again');
ok(wait_until(sub { info('workers', 'again') =~ /^on/ }), 'served');
my $log = -s $node->logfile;
$node->safe_psql('again',
	"UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'session_manager'"
);
ok( wait_until(
		sub { info('workers', 'again') =~ /is older than the library/ }),
	'session_info tells of another version');
$node->safe_psql('again',
	"SELECT session_create('ann', ttl => '1 millisecond')");
sleep(3);
is($node->safe_psql('again', 'SELECT count(*) FROM user_sessions'),
	1, 'and nothing is swept');
my @warnings = slurp_file($node->logfile, $log) =~
  /(WARNING:  session_manager is at version)/g;
is(scalar @warnings, 1, 'with one warning');
$node->safe_psql('again',
	"UPDATE pg_extension SET extversion = '1.0' WHERE extname = 'session_manager'"
);
$node->safe_psql('again', 'SELECT session_active_count()');
ok( wait_until(
		sub {
			$node->safe_psql('again', 'SELECT count(*) FROM user_sessions')
			  == 0;
		}),
	'once it is right again, workers go on');

# Chosen databases
$node->append_conf('postgresql.conf',
	"session_manager.databases = 'again, \"Other\"'");
$node->reload;
ok(no_worker($node, 'postgres'), 'a database that is not chosen has none');
$node->safe_psql('postgres',
	"SELECT session_create('ann', ttl => '1 millisecond')");
$node->safe_psql('again',
	"SELECT session_create('ann', ttl => '1 millisecond')");
ok( wait_until(
		sub {
			$node->safe_psql('again', 'SELECT count(*) FROM user_sessions')
			  == 0;
		}),
	'a database that is chosen is swept');
is( $node->safe_psql(
		'postgres',
		"SELECT count(*) FROM user_sessions WHERE user_id = 'ann'"),
	1,
	'one that is not is not');
ok( wait_until(
		sub { info('workers') =~ /^off: .*session_manager.databases/ }),
	'and session_info tells why');

# Nothing is left in shared memory for a worker that never comes.
my $token = create_session($node, 'bea');
$node->safe_psql('postgres',
	"UPDATE user_sessions SET last_seen_at = last_seen_at - interval '1 hour' WHERE user_id = 'bea'"
);
$node->safe_psql('postgres', "SELECT session_get('$token')");
is( $node->safe_psql(
		'postgres',
		"SELECT now() - last_seen_at < '1 min' FROM user_sessions WHERE user_id = 'bea'"
	),
	't',
	'a use is written at once there');
substr($token, -1) = substr($token, -1) eq 'A' ? 'B' : 'A';
$node->safe_psql('postgres', "BEGIN; SELECT session_get('$token'); ROLLBACK");
is( $node->safe_psql(
		'postgres',
		"SELECT findings_queued FROM session_stats WHERE database_name = 'postgres'"
	),
	'0',
	'and no finding queued');
$node->append_conf('postgresql.conf', "session_manager.databases = ''");
$node->reload;
ok( wait_until(
		sub {
			$node->safe_psql('postgres',
				"SELECT count(*) FROM user_sessions WHERE user_id = 'ann'")
			  == 0;
		}),
	'once every database is chosen, it is swept again');
$node->safe_psql('postgres', 'ALTER DATABASE again IS_TEMPLATE true');
ok(wait_until(sub { info('workers', 'again') =~ /^off: .*template/ }),
	'a template is left alone');

my $whole = slurp_file($node->logfile);
unlike($whole, qr/deadlock/i, 'no deadlock');
# (a worker may have been on its way to a database that was being dropped)
unlike(
	$whole,
	qr/(ERROR|FATAL|PANIC):(?!.*(user_sessions" does not exist|database \d+ does not exist|starting up))/,
	'and no error in the log');
$node->stop;

# No worker to be had
$node = new_node(
	'scarce',
	preload => 'session_manager',
	conf => qq(
session_manager.sweep_interval = 1s
max_worker_processes = 2
max_parallel_workers = 0
));
ok( wait_until(
		sub {
			slurp_file($node->logfile) =~
			  /no background worker is free.*\n.*Raise max_worker_processes/;
		}),
	'the log tells what to do when there is no worker to be had');
ok(live($node, create_session($node, 'ann')), 'and sessions work');
$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
$node->restart;
like(
	slurp_file($node->logfile),
	qr/LOG:  too many background workers\n.*\n.*HINT:  .*max_worker_processes/,
	'nor when there is no launcher to be had');
is( info('workers'),
	'off: the launcher is not running',
	'which session_info tells');
ok(live($node, create_session($node, 'ann')), 'sessions work all the same');
$node->stop;

done_testing();
