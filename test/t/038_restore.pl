# A dump is restored while workers are at work: whatever the options and
# however long it takes, they stay out of its way.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $node = new_node(
	'restore',
	preload => 'session_manager',
	conf => qq(
session_manager.sweep_interval = 1s
session_manager.event_partition = 'day'
session_manager.databases = 'nowhere'
));
my $dir = $node->basedir;
my $list = "$dir/list";

# Partitions that a worker would make, one that it would drop, a session that
# it would sweep, and tables that make the restore take its time
$node->safe_psql(
	'postgres', q(
	SELECT session_cleanup() \g /dev/null
	INSERT INTO session_events (at, user_id, event) SELECT now() - i * interval '80 d', 'old', 'created' FROM generate_series(1, 2) AS i;
	SET session_manager.event_retention = 0;
	SELECT session_cleanup() \g /dev/null
	SELECT count(*) FROM generate_series(1, 20) AS i, session_create('dead' || i, ttl => '1 second') \g /dev/null
	SELECT session_token AS token FROM session_create('live', '{"a": 1}') \gset
	CREATE TABLE token AS SELECT :'token'::text AS token;
	DO $$
	BEGIN
		FOR i IN 1 .. 150 LOOP
			EXECUTE format('CREATE TABLE zz_%s (id int PRIMARY KEY, t text UNIQUE)', i);
			EXECUTE format('INSERT INTO zz_%s SELECT i, i::text FROM generate_series(1, 10) AS i', i);
		END LOOP;
	END
	$$;
));
my $token = $node->safe_psql('postgres', 'SELECT token FROM token');
$node->safe_psql('postgres', 'SELECT pg_sleep(1.1)');
$node->command_ok(
	[ 'pg_dump', '-Fc', '-f', "$dir/dump", $node->connstr('postgres') ],
	'dump');
$node->command_ok(
	[
		'pg_dump', '--clean',
		'--if-exists', '-f',
		"$dir/dump.sql", $node->connstr('postgres')
	],
	'plain dump');
my $partitions = $node->safe_psql('postgres',
	"SELECT string_agg(inhrelid::regclass::text, ' ' ORDER BY inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'session_events'::regclass"
);
like(
	$partitions,
	qr/^(session_events_\d+\w* ){4,}session_events_default$/,
	'which has partitions');
my $events = $node->safe_psql('postgres',
	'SELECT count(*), sum(event_id) FROM session_events');

$node->append_conf('postgresql.conf', "session_manager.databases = ''");
$node->reload;
# the original is not what this is about
$node->safe_psql('postgres', 'DROP EXTENSION session_manager');

my $n = 0;

sub fresh
{
	my $dbname = 'r' . ++$n;
	$node->safe_psql('postgres', "CREATE DATABASE $dbname");
	return $dbname;
}

# Restore, without a word.
sub restore
{
	my ($dbname, @options) = @_;
	$node->command_checks_all(
		[
			'pg_restore', '-d', $node->connstr($dbname), @options,
			"$dir/dump"
		],
		0,
		[qr/^$/],
		[qr/^$/],
		join(' ', 'pg_restore', map { s/^\Q$dir\E\///r } @options));
	return;
}

# Wait until workers have been in the database, more than once.
sub let_workers_in
{
	my ($dbname) = @_;
	my $passes =
	  "SELECT last_pass_at FROM session_stats WHERE database_name = '$dbname'";
	foreach (1 .. 2)
	{
		# a look from outside does not tell them that something is there
		my $before = $node->safe_psql($dbname, $passes);
		wait_until(sub { $node->safe_psql($dbname, $passes) ne $before })
		  or die "no pass in $dbname";
	}
	return;
}

sub is_whole
{
	my ($dbname, $how) = @_;
	is($node->safe_psql($dbname, "SELECT data FROM session_get('$token')"),
		'{"a": 1}', "$how: the session is there");
	is( $node->safe_psql(
			$dbname,
			q(SELECT count(*), count(DISTINCT event_id) - count(*) FROM session_events WHERE event = 'created' AND user_id <> 'old')
		),
		'21|0',
		"$how: its events too, each once");
	ok( wait_until(
			sub {
				$node->safe_psql($dbname,
					'SELECT count(*) FROM user_sessions') == 1;
			}),
		"$how: then the dead sessions go");
	ok( wait_until(
			sub {
				$node->safe_psql($dbname,
					q(SELECT count(*) FROM session_events WHERE user_id = 'old' AND at < now() - interval '90 days')
				) == 0;
			}),
		"$how: and the old partition");
	like(
		$node->safe_psql(
			$dbname,
			q(SELECT value FROM session_info() WHERE key = 'workers')),
		qr/^on(: pid \d+ is at work)?$/,
		"$how: nothing is waited for");
	$node->safe_psql('postgres', "DROP DATABASE $dbname");
	return;
}

# Step by step, with workers in between
my $dbname = fresh();
my ($entries) = run_command([ 'pg_restore', '-l', "$dir/dump" ]);
my @entries = grep { !/^;/ } split /\n/, $entries;
my @steps = ([], [], [], [], []);
foreach my $entry (@entries)
{
	push @{
		$steps[
		  $entry =~ /EXTENSION/ ? 0
		: $entry =~ /TABLE DATA .* user_sessions/ ? 2
		: $entry =~ / TABLE DATA /                ? 2
		: $entry =~ / SEQUENCE SET /              ? 3
		: $entry =~ / (CONSTRAINT|INDEX) /        ? 4
		: 1
		]
	  },
	  $entry;
}
foreach my $i (0 .. $#steps)
{
	write_file($list, join("\n", @{ $steps[$i] }) . "\n", 0644);
	restore($dbname, '-L', $list);
	is($node->safe_psql($dbname, 'SELECT count(*) FROM user_sessions'),
		21, 'nothing has been swept yet')
	  if $i == 2 || $i == 3;
	let_workers_in($dbname) if $i < $#steps;
	like(
		$node->safe_psql(
			$dbname,
			q(SELECT value FROM session_info() WHERE key = 'workers')),
		qr/^on: maintenance waits for the/,
		"a worker waits after step $i") if $i < $#steps;
}
is_whole($dbname, 'step by step');

# The schema, then the data
$dbname = fresh();
restore($dbname, '--schema-only');
let_workers_in($dbname);
restore($dbname, '--data-only');
is_whole($dbname, 'schema and data');

# At once, with every option
foreach my $options ([], ['--exit-on-error'], ['--single-transaction'],
	[ '-j', '4' ])
{
	$dbname = fresh();
	restore($dbname, @$options);
	is_whole($dbname, "@$options");
}

# Over a database in use
$dbname = fresh();
restore($dbname);
let_workers_in($dbname);
restore($dbname, '--clean', '--if-exists');
let_workers_in($dbname);
restore($dbname, '--clean', '--if-exists', '--single-transaction');
is_whole($dbname, 'clean');

# The same, and nobody looks while the tables are empty
$dbname = fresh();
restore($dbname);
wait_until(
	sub {
		$node->safe_psql($dbname,
			q(SELECT value FROM session_info() WHERE key = 'workers')) !~
		  /waits/;
	}) or die 'maintenance does not begin';
let_workers_in($dbname);
$node->append_conf('postgresql.conf',
	"session_manager.sweep_interval = '1h'");
$node->reload;
my $quiet = sub {
	my $passes =
	  "SELECT last_pass_at FROM session_stats WHERE database_name = '$dbname'";
	my $before = $node->safe_psql($dbname, $passes);
	sleep 3;
	return $node->safe_psql($dbname, $passes) eq $before;
};
wait_until($quiet) or die 'workers do not come to rest';
write_file($list, join("\n", map { @$_ } @steps[ 0 .. $#steps - 1 ]) . "\n",
	0644);
restore($dbname, '--clean', '--if-exists', '-L', $list);
$node->append_conf('postgresql.conf',
	"session_manager.sweep_interval = '1s'");
$node->reload;
let_workers_in($dbname);
is($node->safe_psql($dbname, 'SELECT count(*) FROM user_sessions'),
	21, 'clean, unseen: nothing has been swept yet');
write_file($list, join("\n", @{ $steps[-1] }) . "\n", 0644);
restore($dbname, '-L', $list);
is_whole($dbname, 'clean, unseen');

# As text, by psql
$dbname = fresh();
$node->command_checks_all(
	[
		'psql', '-Xq', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-f',
		"$dir/dump.sql", $node->connstr($dbname)
	],
	0,
	[qr/^$/],
	[qr/^((psql.*NOTICE: .*does not exist, skipping)?\n?)*$/],
	'psql');
is_whole($dbname, 'psql');

unlike(
	slurp_file($node->logfile),
	qr/deadlock detected|already exists|TRAP/,
	'without a conflict');
$node->stop;

# A database without a key is looked at again soon, whatever sweep_interval is.
my $late = new_node(
	'late',
	preload => 'session_manager',
	extension => 0,
	conf => "session_manager.sweep_interval = 1h");
$late->safe_psql('postgres',
	'SET client_min_messages = warning; CREATE EXTENSION session_manager CASCADE'
);
ok( wait_until(
		sub {
			$late->safe_psql('postgres',
				"SELECT value FROM session_info() WHERE key = 'workers'") =~
			  /^on: maintenance waits/;
		}),
	'before there is a key, maintenance waits');
$late->safe_psql('postgres', 'SELECT session_key_add(1)');
ok( wait_until(
		sub {
			$late->safe_psql('postgres',
				'SELECT coalesce(max(sweeps), 0) FROM session_stats') > 0;
		}),
	'and begins soon after');

done_testing();
