# Where background workers are scarce, the caches of several databases do not
# take the places that sweeps need.  One cache after another gives its place up;
# sessions and revocations work without it, and session_info says what waits.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use CacheTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RedisServer;
use SessionManagerTest;
use Test::More;

my $redis = RedisServer->new;

# The launcher, PostgreSQL's own for logical replication, and two more
my $node = new_node(
	'scarce',
	preload => 'session_manager',
	extension => 0,
	conf => qq(
max_worker_processes = 4
max_parallel_workers = 0
session_manager.sweep_interval = 1s
session_manager.redis_mode = strict
session_manager.redis_socket = '@{[ $redis->socket ]}'
));
my @databases = ('one', 'two', 'three');
for my $database (@databases)
{
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	install_extension($node, $database);
}

sub count_in
{
	my ($database, $sql) = @_;
	return $node->safe_psql($database, $sql);
}

sub info_of
{
	my ($database, $key) = @_;
	return count_in($database,
		"SELECT value FROM session_info() WHERE key = '$key'");
}

# Each database is swept, again and again.
for my $round (1 .. 3)
{
	my %token;
	for my $database (@databases)
	{
		$token{$database} = count_in(
			$database, q(
			SELECT FROM generate_series(1, 20) AS i, session_create('dead' || i, ttl => '1 millisecond');
			SELECT session_token FROM session_create('ann')));
		$token{$database} =~ s/.*\n//s;
	}
	for my $database (@databases)
	{
		ok( wait_until(
				sub {
					count_in($database,
						q(SELECT count(*) FROM user_sessions WHERE user_id LIKE 'dead%')
					) eq '0';
				},
				180),
			"round $round: database $database is swept"
		) or diag(info_of($database, 'workers'));
		is( count_in(
				$database, "SELECT session_invalidate('$token{$database}')"),
			'ann',
			'a session there can be ended');
		is(live($node, $token{$database}, $database), '0', 'and is');
	}
}

# What could have a place has it, and the others know why not.
my %caches;
ok( wait_until(
		sub {
			%caches = map { $_ => info_of($_, 'cache') } @databases;
			return 2 == grep {
				/^off: no background worker is free for it; raise max_worker_processes/
			} values %caches;
		},
		60),
	'two databases are told that there is no place for their cache'
) or diag(explain(\%caches));
is(scalar(grep { $_ eq 'strict' } values %caches), 1, 'the third has one');
like(
	slurp_file($node->logfile),
	qr/disabling a cache of session_manager because other workers need its place.*\n.*HINT:  Raise max_worker_processes/,
	'the log says so');
for my $database (grep { $caches{$_} ne 'strict' } @databases)
{
	my $token =
	  count_in($database, q(SELECT session_token FROM session_create('bob')));
	is(count_in($database, "SELECT session_invalidate('$token')"),
		'bob', 'without a cache a session can be ended');
	is(count_in($database, 'SELECT count(*) FROM session_outbox'),
		'0', 'and nothing is left for a cache');
}

# With enough of them, all have what they need.
$node->append_conf('postgresql.conf', 'max_worker_processes = 16');
$node->restart;
for my $database (@databases)
{
	ok( wait_until(
			sub { info_of($database, 'cache_server') =~ /^connected/ }, 60),
		"database $database has a cache");
	is(info_of($database, 'cache'), 'strict', 'which is not switched off');
}

# No place at all: a pass says what it waits for.
$node->append_conf('postgresql.conf', 'max_worker_processes = 2');
$node->restart;
ok( wait_until(
		sub {
			info_of('one', 'workers') =~
			  /^on: a pass has waited for a free background worker for \d+ s; raise max_worker_processes/;
		},
		60),
	'session_info says that passes wait, and for what');
$node->stop;

done_testing();
