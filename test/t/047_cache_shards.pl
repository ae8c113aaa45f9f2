# The cache in Redis, and shards: what a server's epoch vouches for are its own
# sessions, whoever shares a Redis with it, whatever map a reader goes by, and
# when its share of the buckets changes.  A Redis that is killed holds up the
# revocations of its own shard, and no other's.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use CacheHistory;
use CacheTest;
use IPC::Run;
use List::Util qw(max);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RedisServer;
use SessionManagerTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $key = random_key();

# A server of the fleet: the same keys under the same installation as the first.
sub shard
{
	my ($name, $redis, $first, $conf) = @_;
	my $node = new_node(
		$name,
		preload => 'session_manager',
		extension => !$first,
		key => $key,
		conf => ($conf // '') . qq(
session_manager.sweep_interval = 1h
session_manager.redis_mode = strict
session_manager.redis_socket = '@{[ $redis->socket ]}'
));
	if ($first)
	{
		$node->safe_psql('postgres',
			'SET client_min_messages = warning; CREATE EXTENSION session_manager CASCADE'
		);
		for my $table ('session_installation', 'session_keys')
		{
			my $rows = $first->safe_psql('postgres', "COPY $table TO stdout");
			$node->safe_psql('postgres',
				"COPY $table FROM stdin;\n$rows\n\\.\n");
		}
	}
	wait_for_epoch($node, $redis);
	return $node;
}

# A user of the part of the buckets, of so many parts.
sub user_of
{
	my ($node, $part, $parts) = @_;
	return $node->safe_psql('postgres',
		"SELECT u FROM (SELECT 'user' || i FROM generate_series(1, 1000) AS i) AS s(u) WHERE session_bucket(u) * $parts / 65536 + 1 = $part LIMIT 1"
	);
}

# Two shards with one Redis, by mistake: the same installation, two epochs.
my $redis = RedisServer->new;
my $one = shard('one', $redis, undef, "session_manager.shard = '1/2'\n");
my $two = shard('two', $redis, $one, "session_manager.shard = '2/2'\n");
{
	my %user = (one => user_of($one, 1, 2), two => user_of($two, 2, 2));
	is( $one->safe_psql(
			'postgres', 'SELECT installation_id FROM session_installation'),
		$two->safe_psql(
			'postgres', 'SELECT installation_id FROM session_installation'),
		'one installation');
	isnt(epoch_key($one), epoch_key($two), 'with an epoch for each server');
	my $first = cached_session($one, $redis, $user{one});
	my $second = cached_session($two, $redis, $user{two});
	ok(!remembered($two, $redis, $first),
		'what one caches does not count under the epoch of two');
	ok(!remembered($one, $redis, $second), 'nor the other way round');
	$one->safe_psql('postgres', "SELECT session_invalidate('$first')");
	ok(!remembered($one, $redis, $first), 'ended by one, and not served');
	ok(remembered($two, $redis, $second), 'the cache of two is as it was');
	my $epoch = epoch($two, $redis);
	$one->safe_psql('postgres', 'TRUNCATE user_sessions');
	is(epoch($two, $redis),
		$epoch, 'and so is its epoch when that of one ends');
}
$two->stop;

# A reader goes on with the settings of one server when another answers, as
# after a failover to a standby while the old primary is alive: the other has
# the same sessions, and revokes them where the first does not see it.
my $old_redis = $redis;
my $new_redis = RedisServer->new;
{
	$one->append_conf('postgresql.conf', "session_manager.shard = ''\n");
	$one->reload;
	my $successor = shard('successor', $new_redis, $one);
	my @tokens = map { create_session($one, "user$_") } 1 .. 6;
	my $dump = $one->safe_psql('postgres', 'COPY user_sessions TO stdout');
	$successor->safe_psql('postgres',
		"COPY user_sessions FROM stdin;\n$dump\n\\.\n");
	my $application_key = PostgreSQL::Test::Utils::tempdir() . '/key';
	write_file($application_key, random_key() . "\n");

	# where the reader connects to leads to the one or to the other
	my $where = PostgreSQL::Test::Utils::tempdir_short();
	my $lead_to = sub {
		my ($node) = @_;
		unlink "$where/.s.PGSQL.5432";
		symlink $node->host . '/.s.PGSQL.' . $node->port,
		  "$where/.s.PGSQL.5432"
		  or die "symlink: $!";
	};
	my $read_by = sub {
		my ($reader, @tokens) = @_;
		$lead_to->($one);
		my ($in, $out) = ('', '');
		my $user = $one->safe_psql('postgres', 'SELECT current_user');
		my $run = IPC::Run::start(
			[
				$reader,
				"host=$where port=5432 dbname=postgres user=$user application_name=reader",
				$old_redis->socket,
				$application_key
			],
			\$in,
			\$out);
		my $ask = sub {
			my ($token) = @_;
			$out = '';
			$in = "$token\n";
			$run->pump until $out =~ /\n/;
			return (split ' ', $out)[0];
		};
		my @results;
		push @results, $ask->($tokens[0]);
		# (an answer of Redis's that is late is a miss)
		my $source = '';
		wait_until(sub { ($source = $ask->($tokens[0])) eq 'cache' }, 10);
		push @results, $source;
		$lead_to->($successor);
		$one->safe_psql('postgres',
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'reader'"
		);
		push @results, $ask->($tokens[1]);    # finds the connection gone
		wait_until(
			sub { !defined $old_redis->call('GET', redis_key($tokens[1])) },
			10);
		push @results, $ask->($tokens[1]), $ask->($tokens[1]);
		is( $successor->safe_psql(
				'postgres',
				"SELECT session_invalidate('$tokens[1]') IS NOT NULL"),
			't',
			'the new server ends the session');
		# (late again, on a busy machine: once served is served)
		my @last = map { $ask->($tokens[1]) } 1 .. 5;
		push @results, (grep { $_ eq 'cache' } @last) ? 'cache' : $last[0];
		$run->finish;
		return "@results";
	};
	is( $read_by->(
			CacheHistory::compile('examples/cache_reader.c'),
			@tokens[ 0, 1 ]),
		'database cache error database database none',
		'what another server answers is not cached under the epoch of the first'
	);
	like(
		$read_by->(
			CacheHistory::changed(
				'examples/cache_reader.c',
				'strcmp(PQgetvalue(result, 0, 4), reader->installation) != 0',
				'false'),
			@tokens[ 2, 3 ]),
		qr/^database cache error database (cache|database) cache$/,
		'a reader that does so serves what has been revoked');
	$successor->stop;
}

# The share of a server changes while its sessions are cached, as in a split.
{
	my $staying = user_of($one, 1, 2);
	my $moving = user_of($one, 2, 2);
	my $token = cached_session($one, $redis, $moving);
	my $other = create_session($one, $moving);
	my $epoch = epoch($one, $redis);
	is(info($one, 'cache_shard'), 'current', 'the cache goes by the setting');

	# a statement that began before the change goes by the old share
	my $slow = PostgreSQL::Test::Utils::tempdir() . '/slow';
	my ($run) = in_parallel(
		$one,
		{
			cmd => [
				'psql',
				'-XAtq',
				'-d',
				'postgres',
				'-c',
				"SELECT s.cacheable, s.user_id FROM pg_sleep(4), LATERAL session_get('$other', touch => false) AS s"
			],
			out => $slow
		});
	wait_until(
		sub {
			$one->safe_psql('postgres',
				"SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
			) eq '1';
		});
	$one->append_conf('postgresql.conf', "session_manager.shard = '1/2'\n");
	$one->reload;
	ok(wait_until(sub { info($one, 'cache_shard') eq 'current' }, 5),
		'soon the cache goes by the new setting');
	ok(!remembered($one, $redis, $token),
		'what the server no longer holds is not served from its cache');
	isnt(wait_for_epoch($one, $redis), $epoch, 'it has another epoch');
	like(failure($one, "SELECT session_get('$token')"), qr/^SM005:/, 'SM005');
	ok(remembered($one, $redis, cached_session($one, $redis, $staying)),
		'what it holds it caches');
	finish_all($run);
	is(slurp_file($slow), "f|$moving\n",
		'nothing of the old share is cacheable under the new epoch');

	# with a Redis that does not answer
	$redis->stop;
	$one->append_conf('postgresql.conf', "session_manager.shard = ''\n");
	$one->reload;
	wait_until(
		sub {
			$one->safe_psql('postgres', 'SHOW session_manager.shard') eq '';
		});
	like(
		info($one, 'cache_shard'),
		qr/^changing: /,
		'Redis does not answer: it may still serve');
	ok(wait_until(sub { info($one, 'cache_shard') eq 'current' }, 10),
		'until the epoch is over');
	like(info($one, 'cache_epoch'), qr/^none: /, 'there is none then');
	$redis->continue;
	wait_for_epoch($one, $redis);
}
$one->stop;

# Four shards with a Redis each, of which one is killed during revocations.
{
	my $count = 250;
	my @redis = map { RedisServer->new } 0 .. 3;
	my @nodes;
	foreach my $i (0 .. 3)
	{
		push @nodes,
		  shard("shard$i", $redis[$i], $nodes[0],
			"session_manager.shard = '@{[ $i + 1 ]}/4'\nsession_manager.max_sessions_per_user = 0\n"
		  );
	}
	my @outs = map { PostgreSQL::Test::Utils::tempdir() . "/$_" } 0 .. 3;
	my @running;
	foreach my $i (0 .. 3)
	{
		my $node = $nodes[$i];
		my $user = user_of($node, $i + 1, 4);
		$node->safe_psql('postgres',
			"CREATE TABLE revocations (n serial, token text, ms float8); INSERT INTO revocations (token) SELECT s.session_token FROM generate_series(1, $count) AS i, session_create('$user', jsonb_build_object('n', i)) AS s"
		);
		push @running, in_parallel(
			$node,
			{
				cmd => [
					'psql', '-XAtq', '-d', 'postgres', '-c', qq(
DO \$\$
DECLARE
	one record;
	began timestamptz;
BEGIN
	FOR one IN SELECT * FROM revocations ORDER BY n LOOP
		began := clock_timestamp();
		PERFORM session_invalidate(one.token);
		COMMIT;
		UPDATE revocations SET ms = extract(epoch FROM clock_timestamp() - began) * 1000 WHERE n = one.n;
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
END;
\$\$;)
				],
				out => $outs[$i]
			});
	}
	my $done = sub {
		return 0 +
		  $nodes[3]
		  ->safe_psql('postgres', 'SELECT count(ms) FROM revocations');
	};
	wait_until(sub { $done->() >= 20 });
	my $before = $done->();
	$redis[3]->kill9;
	is_deeply(
		[ finish_all(@running) ],
		[ 0, 0, 0, 0 ],
		'every client ends well') or diag(map { slurp_file($_) } @outs);
	cmp_ok($before, '<', $count, 'Redis was killed during the revocations');
	foreach my $i (0 .. 3)
	{
		my ($median, $longest) = split /\|/,
		  $nodes[$i]->safe_psql('postgres',
			'SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY ms), max(ms) FROM revocations'
		  );
		note(sprintf 'shard %d: median %.2f ms, longest %.0f ms',
			$i, $median, $longest);
		cmp_ok($median, '<=', 20, "shard $i: the median of its commits");
		is( $nodes[$i]->safe_psql(
				'postgres',
				'SELECT count(DISTINCT token), count(s.user_id) FROM revocations LEFT JOIN LATERAL session_get(token) AS s ON true'
			),
			"$count|0",
			"shard $i: every session is ended");
		next if $i < 3;
		cmp_ok($longest, '<=', 3000,
			'its own revocations wait once, for a time');
		cmp_ok($longest, '>=', 250, 'which shows that Redis was needed');
	}
	$_->stop foreach @nodes;
}

done_testing();
