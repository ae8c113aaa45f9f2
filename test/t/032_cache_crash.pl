# The cache in Redis, and what becomes of its worker: killed, missing, in
# somebody's way.

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
use Time::HiRes qw(sleep time);

my $redis = RedisServer->new;
my $node = cached_node(
	'crash', $redis,
	conf => qq(
max_worker_processes = 16
restart_after_crash = on
));

sub sql { return $node->safe_psql('postgres', @_); }

sub worker
{
	my ($type, $dbname) = @_;
	$dbname = defined $dbname ? "AND datname = '$dbname'" : '';
	return sql(
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'session_manager $type' $dbname"
	);
}

# Is a session served to a reader that knows the epoch's key from before?
sub served { return defined served_at($redis, @_) ? 1 : 0; }

sub wait_for_server
{
	wait_until(sub { if_there($node, 'SELECT 1') eq '1' })
	  or die 'the server does not come back';
	return;
}

# The worker is ended
{
	my $token = cached_session($node, $redis);
	my $pid = worker('cache worker');
	my $old = epoch($node, $redis);
	sql("SELECT pg_terminate_backend($pid)");
	ok( wait_until(
			sub {
				my $now = worker('cache worker');
				$now ne '' && $now != $pid;
			}),
		'a worker that is ended is replaced');
	cmp_ok((timed($node, "SELECT session_invalidate('$token')"))[1],
		'<', 3, 'meanwhile nobody waits for long');
	ok( !remembered($node, $redis, $token),
		'nor is anything served that was revoked');
	isnt(wait_for_epoch($node, $redis), $old, 'the new one has a new epoch');
}
# and the launcher
{
	my $pid = worker('cache worker');
	my $launcher = worker('launcher');
	sql("SELECT pg_terminate_backend($launcher)");
	ok( wait_until(
			sub {
				my $now = worker('launcher');
				$now ne '' && $now != $launcher;
			}),
		'the launcher is replaced');
	sleep 3;
	is(worker('cache worker'), $pid, 'and starts no second worker');
	ok(wait_for_epoch($node, $redis), 'the first goes on');
}

# Killed, so that the server restarts; a reader may know of the old epoch.
for my $victim ('cache worker', 'checkpointer', 'postmaster')
{
	my $token = cached_session($node, $redis);
	my $key = epoch_key($node);
	my $old = epoch($node, $redis);
	my $installation =
	  sql('SELECT installation FROM session_cache_settings()');
	ok(served($key, $token), "$victim: served before");
	if ($victim eq 'postmaster')
	{
		my $pid =
		  (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
		my @family = split ' ', `ps -o pid= --ppid $pid`;
		kill 'KILL', $pid, @family;
		# they hold the shared memory until they are gone
		wait_until(
			sub {
				!grep { kill 0, $_ } $pid, @family;
			}) or die 'orphans live on';
		unlink $node->data_dir . '/postmaster.pid';
		$node->{_pid} = undef;
		wait_until(sub { $node->start(fail_ok => 1) })
		  or die 'the server does not start';
	}
	elsif ($victim eq 'checkpointer')
	{
		kill 'KILL',
		  sql(
			"SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
		  );
		sleep 0.1;
		wait_for_server();
	}
	else
	{
		kill 'KILL', worker($victim);
		sleep 0.1;
		wait_for_server();
	}
	my $before = served($key, $token);
	my (undef, $took) = timed($node, "SELECT session_invalidate('$token')");
	ok( !served($key, $token),
		"$victim: not served once it is revoked (served until then: $before)"
	);
	cmp_ok($took, '<', 3, sprintf('%s: which takes %.2f s', $victim, $took));
	isnt(sql('SELECT installation FROM session_cache_settings()'),
		$installation, "$victim: the epoch's key is another");
	isnt(wait_for_epoch($node, $redis), $old, "$victim: and the epoch");
	ok(!remembered($node, $redis, $token), "$victim: not served under that");
}

# Committed, not yet told, and the server crashes
$node->append_conf('postgresql.conf', "session_manager.redis_mode = async\n");
$node->reload;
ok(wait_until(sub { info($node, 'cache') eq 'async' }), 'async');
{
	my @tokens = map { cached_session($node, $redis) } 1 .. 3;
	my $key = epoch_key($node);
	my $pid = worker('cache worker');
	# (before the epoch is over, when nothing needs to be in the outbox)
	my $revoker = connection($node);
	kill 'STOP', $pid;
	query($revoker, "SELECT session_invalidate('$_')") foreach @tokens;
	is(query($revoker, 'SELECT count(*) FROM session_outbox'),
		3, 'three in the outbox');
	$revoker->quit;
	$redis->stop;
	$node->stop('immediate');
	$node->start;
	ok( wait_until(
			sub {
				sql('SELECT count(*) FROM session_outbox WHERE session_id IS NOT NULL'
				) == 0;
			}),
		'are as good as delivered when no epoch can be alive');
	$redis->continue;
	wait_for_epoch($node, $redis);
	is( scalar(
			grep { remembered($node, $redis, $_) || served($key, $_) }
			  @tokens),
		0,
		'none is served');
}
# The same with a clean restart
{
	my $token = cached_session($node, $redis);
	my $key = epoch_key($node);
	$node->restart;
	my $revoked = (timed($node, "SELECT session_invalidate('$token')"))[3];
	cmp_ok(served_until($redis, $key, $token) - $revoked,
		'<=', 3, 'restarted: not served for longer than three seconds');
	wait_for_epoch($node, $redis);
	ok(!remembered($node, $redis, $token), 'nor later');
}
$node->append_conf('postgresql.conf',
	"session_manager.redis_mode = strict\n");
$node->reload;
ok(wait_until(sub { info($node, 'cache') eq 'strict' }), 'strict');

# Two databases are two caches.
$node->safe_psql('postgres', 'CREATE DATABASE second');
install_extension($node, 'second');
{
	my $token = cached_session($node, $redis);
	my $second = wait_for_epoch($node, $redis, 'second');
	isnt(epoch_key($node, 'second'),
		epoch_key($node), 'a second database has its own key');
	$node->safe_psql('second', 'TRUNCATE user_sessions');
	isnt(wait_for_epoch($node, $redis, 'second'), $second, 'its epoch ends');
	ok(remembered($node, $redis, $token), 'and the other does not');
	ok(wait_until(sub { info($node, 'cache_outbox', 'second') eq '0' }),
		'and the outbox is emptied');
}

# Those who want the database for themselves do not wait for long.
quick(
	$node,
	'a database is copied while its cache is on',
	'CREATE DATABASE copy TEMPLATE second');
wait_for_epoch($node, $redis, 'copy');
isnt(
	epoch_key($node, 'copy'),
	epoch_key($node, 'second'),
	'the copy has a key of its own');
isnt(wait_for_epoch($node, $redis, 'second'),
	undef, 'and the worker of the other comes back');
for my $round (1 .. 3)
{
	wait_for_epoch($node, $redis, 'copy');
	quick(
		$node,
		"round $round: it is renamed",
		"ALTER DATABASE copy RENAME TO other");
	wait_for_epoch($node, $redis, 'other');
	quick(
		$node,
		"round $round: and back",
		"ALTER DATABASE other RENAME TO copy");
	wait_for_epoch($node, $redis, 'second');
	quick(
		$node,
		"round $round: copied again",
		"CREATE DATABASE copy$round TEMPLATE second");
}
quick($node, "copy$_ is dropped", "DROP DATABASE copy$_") for 1 .. 3;
wait_for_epoch($node, $redis, 'copy');
quick($node, 'a database with a cache is dropped', 'DROP DATABASE copy');
wait_for_epoch($node, $redis, 'second');
quick($node, 'by force', 'DROP DATABASE second WITH (FORCE)');
# while Redis does not answer
$node->safe_psql('postgres', 'CREATE DATABASE third');
install_extension($node, 'third');
wait_for_epoch($node, $redis, 'third');
$redis->stop;
quick(
	$node,
	'a database is renamed while Redis does not answer',
	'ALTER DATABASE third RENAME TO fourth');
quick($node, 'and dropped', 'DROP DATABASE fourth');
$redis->continue;
# DROP EXTENSION
$node->safe_psql('postgres', 'CREATE DATABASE again');
for my $round (1 .. 5)
{
	install_extension($node, 'again');
	wait_for_epoch($node, $redis, 'again');
	my $key = epoch_key($node, 'again');
	quick(
		$node,
		"round $round: the extension is dropped",
		'DROP EXTENSION session_manager', 'again');
	my $dropped = sql('SELECT extract(epoch FROM clock_timestamp())');
	my $last = 0;
	ok( wait_until(
			sub {
				my ($epoch, $now) = @{
					$redis->call(
						'EVAL',
						"return {redis.call('GET', KEYS[1]), redis.call('TIME')}",
						1,
						$key)
				};
				$last = $now->[0] + $now->[1] / 1e6 if defined $epoch;
				return !defined $epoch;
			}),
		"round $round: so does its epoch");
	cmp_ok($last - $dropped, '<=', 3, 'in three seconds');
}
install_extension($node, 'again');
quick(
	$node,
	'and in one transaction with a change',
	"BEGIN; SELECT session_create('ann'); UPDATE user_sessions SET version = 2; DELETE FROM user_sessions; DROP EXTENSION session_manager; COMMIT",
	'again');
# A template, and what is not chosen
install_extension($node, 'again');
wait_for_epoch($node, $redis, 'again');
sql('ALTER DATABASE again IS_TEMPLATE true');
ok( wait_until(
		sub {
			worker('cache worker', 'again') eq ''
			  && info($node, 'cache', 'again') =~
			  /^off: no worker serves this database \(workers are off: .*template/;
		}),
	'a template has no cache');
sql('ALTER DATABASE again IS_TEMPLATE false');
wait_for_epoch($node, $redis, 'again');
$node->append_conf('postgresql.conf',
	"session_manager.databases = 'postgres'\n");
$node->reload;
ok( wait_until(
		sub {
			info($node, 'cache', 'again') =~
			  /^off: no worker serves this database \(workers are off: .*session_manager.databases/;
		}),
	'nor has what is not chosen');
is($node->safe_psql('again', 'SELECT mode FROM session_cache_settings()'),
	'off', 'which readers are told');
is( $node->safe_psql(
		'again',
		"SELECT session_invalidate(session_token) FROM session_create('ann')"
	),
	'ann',
	'and revocations go through');
is($node->safe_psql('again', 'SELECT count(*) FROM session_outbox'),
	0, 'without leaving anything behind');
ok(wait_for_epoch($node, $redis), 'the chosen one has');
sql('DROP DATABASE again');

my $whole = slurp_file($node->logfile);
unlike($whole, qr/deadlock/i, 'no deadlock');
unlike($whole,
	qr/ERROR:  (?!.*(user_sessions" does not exist|canceling autovacuum))/,
	'no error');
$node->stop;

# No worker to be had
$node = cached_node(
	'scarce', $redis,
	start => 0,
	conf => qq(
max_worker_processes = 2
max_parallel_workers = 0
));
$node->start;
install_extension($node, 'postgres');
{
	my $token = create_session($node, 'ann');
	ok( wait_until(
			sub {
				slurp_file($node->logfile) =~ /no background worker is free/;
			}),
		'the log tells that no worker is to be had');
	sleep 2;
	like(
		info($node, 'cache_server'),
		qr/no worker is running|not connected/,
		'so does session_info');
	cmp_ok((timed($node, "SELECT session_invalidate('$token')"))[1],
		'<', 1, 'nobody waits for it');
	is(sql('SELECT count(*) FROM session_outbox'),
		0, 'nor is anything left for it');
}
$node->stop;

# Not preloaded
$node = new_node('plain', conf => "session_manager.redis_mode = strict\n");
like(
	info($node, 'cache'),
	qr/^off: session_manager.redis_mode has no effect unless the library is preloaded/,
	'not preloaded: session_info says so');
is(sql('SELECT mode, installation IS NULL FROM session_cache_settings()'),
	'off|t', 'session_cache_settings');
is( sql("SELECT cacheable FROM session_get('"
		  . create_session($node, 'ann') . "')"),
	'f',
	'nothing may be cached');
is( sql("UPDATE user_sessions SET version = 2; DELETE FROM user_sessions; TRUNCATE user_sessions; SELECT count(*) FROM session_outbox"
	),
	'0',
	'and nothing is recorded');
$node->stop;

done_testing();
