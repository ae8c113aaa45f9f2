# The cache in Redis while Redis does not work: no revocation fails or takes
# longer than three seconds, and nothing that was revoked is served.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use CacheTest;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use POSIX ();
use RedisServer;
use SessionManagerTest;
use Test::More;
use Time::HiRes qw(sleep time);

# An outage of a minute with 50,000 revocations, or a tenth of each.
my $full = long_runs() > 1;
my $outage = $full ? 60 : 6;
my $revocations = $full ? 50_000 : 5_000;

my $password = 'correct horse battery staple';
my $redis = RedisServer->new(
	'requirepass tester',
	"user session_manager on >@{[ $password =~ tr/ /_/r ]} ~session:* resetchannels +select +eval +time +get +set +del +info +client|setname",
	'user passwordless on nopass ~session:* resetchannels +select +eval +time +get +set +del +info +client|setname'
);
$password =~ tr/ /_/;
my $password_file = $redis->dir . '/password';
write_file($password_file, "$password\n");
my $node = cached_node(
	'outage', $redis,
	conf => qq(
session_manager.redis_user = session_manager
session_manager.redis_password_file = '$password_file'
));
my $log = 0;

sub sql { return $node->safe_psql('postgres', @_); }

# Change settings; the last of each counts.
sub set
{
	my (%settings) = @_;
	$node->append_conf(
		'postgresql.conf',
		join('',
			map { "session_manager.$_ = '$settings{$_}'\n" }
			sort keys %settings));
	$node->reload;
	return;
}

# What has been logged since it was last asked for.  The line that tells of a
# connection may come a little after its epoch.
sub logged
{
	wait_until(
		sub {
			slurp_file($node->logfile, $log) !~
			  /has no connection to Redis(?!.*is connected to Redis)/s;
		});
	my $lines = slurp_file($node->logfile, $log);
	$log += length $lines;
	return $lines;
}

sub reason
{
	my ($expected, $name) = @_;
	ok(wait_until(sub { info($node, 'cache_server') =~ $expected }),
		"session_info: $name")
	  or diag(info($node, 'cache_server'));
	return;
}

# Stand between the worker and a Redis server, and say something of one's own: a
# text once a second, or many.  Returns the port, and what ends it.
sub impostor
{
	my ($server, $says, $times) = @_;
	my $listener =
	  IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1')
	  or die "listen: $!";
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		local $SIG{PIPE} = 'IGNORE';
		while (my $client = $listener->accept)
		{
			my $redis = IO::Socket::UNIX->new(Peer => $server)
			  or POSIX::_exit(1);
			my $ends = IO::Select->new($client, $redis);
			my $due = time() + 1;
			for (my $open = 1; $open;)
			{
				foreach my $from ($ends->can_read(0.1))
				{
					$open &&= sysread $from, my $piece, 65536;
					$open
					  and syswrite $from == $client ? $redis : $client,
					  $piece;
				}
				next if time() < $due;
				$open &&= syswrite $client, $says for 1 .. $times;
				$due = time() + 1;
			}
		}
		POSIX::_exit(0);
	}
	return ($listener->sockport, sub { kill 'KILL', $pid; waitpid $pid, 0; });
}

# Redis fails in some way and recovers; meanwhile a session is revoked.
sub outage
{
	my ($name, $fail, $recover, %how) = @_;
	my $token = cached_session($node, $redis);
	my $other = create_session($node, 'bea');
	my $old = epoch($node, $redis);
	my $key = epoch_key($node);
	logged();
	$fail->();
	my ($answer, $took) = timed($node, "SELECT session_invalidate('$token')");
	is($answer, 'ann', "$name: a revocation succeeds");
	cmp_ok($took, '<', 3,
		sprintf('%s: in less than three seconds (%.2f)', $name, $took));
	(undef, $took) = timed($node, "SELECT session_invalidate('$other')");
	cmp_ok(
		$took, '<',
		$how{again} // 1,
		sprintf('%s: the next one at once (%.2f)', $name, $took));
	$recover->();
	ok( !remembered($node, $redis, $token),
		"$name: it is not served afterwards");
	isnt(wait_for_epoch($node, $redis), $old, "$name: a new epoch");
	ok(!remembered($node, $redis, $token), "$name: nor under that");
	ok(wait_until(sub { sql('SELECT count(*) FROM session_outbox') == 0 }),
		"$name: the outbox is empty");
	my @lines =
	  logged() =~ /(session_manager (?:is connected|has no connection).*)/g;
	my %lines = map { $_ => 1 } @lines;
	ok( @lines == keys %lines && @lines <= 3,
		"$name: each change is logged once") or diag(join("\n", @lines));
	return;
}

outage('stopped', sub { $redis->stop }, sub { $redis->continue });
outage(
	'paused',
	sub { $redis->call(qw(CLIENT PAUSE 6000 ALL)) },
	sub { sleep 6 });
outage('killed', sub { $redis->kill9 }, sub { $redis->start });
outage(
	'without memory',
	sub { $redis->call(qw(CONFIG SET maxmemory 1)) },
	sub { $redis->call(qw(CONFIG SET maxmemory 0)) });
outage(
	'forbidden',
	sub { $redis->call(qw(ACL SETUSER session_manager -set -eval)) },
	sub { $redis->call(qw(ACL SETUSER session_manager +set +eval)) });

# Short ones: hardly anybody waits
for my $fail (
	['FLUSHALL'],
	[ 'DEL', epoch_key($node) ],
	[ 'SET', epoch_key($node), 'f' x 32 ])
{
	my $token = cached_session($node, $redis);
	my $old = epoch($node, $redis);
	my ($seconds, $us) = @{
		$redis->call(
			'EVAL',
			"local now = redis.call('TIME') redis.call(unpack(ARGV)) return now",
			0,
			@$fail)
	};
	ok( wait_until(
			sub {
				my $e = epoch($node, $redis);
				defined $e && $e ne $old && $e ne 'f' x 32;
			}),
		"$fail->[0]: a new epoch");
	my $began;
	wait_until(
		sub {
			$began = sql(
				"SELECT extract(epoch FROM clock_timestamp()) - substring(value FROM '^([0-9.]+) s old')::numeric FROM session_info() WHERE key = 'cache_epoch'"
			);
			$began ne '';
		}) or die 'the worker knows of no epoch';
	cmp_ok($began - ($seconds + $us / 1e6), '<', 2, 'soon');
	ok(!remembered($node, $redis, $token), 'under which nothing is served');
	$redis->call(@$fail);
	cmp_ok((timed($node, "SELECT session_invalidate('$token')"))[1],
		'<', 1, 'nobody waits for long');
	ok( !remembered($node, $redis, $token),
		'and what was revoked is not served');
	# (a foreign one may have been set)
	wait_until(
		sub {
			(eval { epoch($node, $redis) } // 'f' x 32) ne 'f' x 32;
		}) or die 'there is no epoch of our own';
}
logged();
my $reader = connection($node);
$redis->call(qw(CLIENT KILL TYPE normal SKIPME yes));
ok( wait_until(
		sub {
			query($reader,
				"SELECT value FROM session_info() WHERE key = 'cache_server'")
			  =~ /waiting for the end of the last epoch/;
		}),
	'after a broken connection the last epoch is let die');
$reader->quit;
wait_for_epoch($node, $redis);
like(
	logged(),
	qr/has no connection to Redis at ".*" for database "postgres": (Server closed the connection|Connection reset by peer)\n(.*\n)*.*is connected to Redis/,
	'and the log says why');

# What keeps a revocation waiting can be cancelled, and nothing is left of it.
{
	my $token = cached_session($node, $redis);
	my $waiting = connection($node);
	my $pid = query($waiting, 'SELECT pg_backend_pid()');
	my $watcher = connection($node);
	$redis->stop;
	# Do something to it when it has waited for a while.
	my $interrupt = sub {
		my ($function, $waits) = @_;
		return wait_until(
			sub {
				query(
					$watcher, qq(
				SELECT $function(pid) FROM pg_stat_activity WHERE pid = $pid AND state = 'active'
				AND query LIKE '$waits' AND query_start < clock_timestamp() - interval '500 ms')
				) eq 't';
			},
			5);
	};
	$waiting->query_until(qr/^waits/m,
		"\\echo waits\nBEGIN; SELECT session_invalidate('$token'); SET LOCAL statement_timeout = '200ms'; COMMIT;\n"
	);
	ok( $interrupt->('pg_cancel_backend', 'COMMIT%'),
		'statement_timeout does not end the wait');
	my ($output, $errors) = query($waiting, 'SELECT 1');
	like(
		$errors . $waiting->{stderr},
		qr/canceling statement due to user request/,
		'a cancellation does');
	ok(live($node, $token), 'and the session is alive');
	$redis->continue;
	wait_for_epoch($node, $redis);
	$redis->stop;
	$waiting->query_until(qr/^waits/m,
		"\\echo waits\nSELECT session_invalidate('$token');\n");
	ok($interrupt->('pg_terminate_backend', 'SELECT session_invalidate%'),
		'it waits again');
	ok( wait_until(
			sub {
				query($watcher,
					"SELECT count(*) FROM pg_stat_activity WHERE pid = $pid")
				  == 0;
			}),
		'a termination as well');
	$watcher->quit;
	ok(live($node, $token), 'and the session is alive');
	$redis->continue;
	wait_for_epoch($node, $redis);
	cmp_ok((timed($node, "SELECT session_invalidate('$token')"))[1],
		'<', 1, 'nobody waits for what was cancelled');
	eval { $waiting->quit };
}

# The worker is cut off, readers are not: what they are served ends in time.
for my $mode ('strict', 'async')
{
	set(redis_mode => $mode);
	ok(wait_until(sub { info($node, 'cache') eq $mode }), "mode $mode");
	my $token = cached_session($node, $redis);
	$redis->call(qw(ACL SETUSER session_manager off));
	$redis->call(qw(CLIENT KILL USER session_manager));
	my $key = epoch_key($node);
	my (undef, $took, $start, $end) =
	  timed($node, "SELECT session_invalidate('$token')");
	my $last = served_until($redis, $key, $token);
	my $served = $last > 0 ? $last - $start : 0;
	cmp_ok($served, '<=', 3,
		sprintf('%s, cut off: served for %.2f s', $mode, $served));

	if ($mode eq 'strict')
	{
		cmp_ok($last, '<=', $end,
			'strict: not after the revocation returned');
		cmp_ok($took, '<', 3, sprintf('which took %.2f s', $took));
	}
	else
	{
		cmp_ok($took, '<', 1, 'async: the revocation waits for nothing');
	}
	$redis->call(qw(ACL SETUSER session_manager on));
	ok(!remembered($node, $redis, $token), "$mode: not served later");
	wait_for_epoch($node, $redis);
}
# and what is not the connection's fault: the worker hangs
{
	my $token = cached_session($node, $redis);
	my $worker = sql(
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'session_manager cache worker'"
	);
	my $key = epoch_key($node);
	my $revoker = connection($node);
	kill 'STOP', $worker;
	my $start = query($revoker,
		"SELECT extract(epoch FROM clock_timestamp()) FROM session_invalidate('$token')"
	);
	my $last = served_until($redis, $key, $token);
	my $served = $last > 0 ? $last - $start : 0;
	cmp_ok($served, '<=', 3,
		sprintf('async, the worker hangs: served for %.2f s', $served));
	$revoker->quit;
	is(sql('SELECT count(*) FROM session_outbox'), 1, 'the outbox knows');
	kill 'CONT', $worker;
	ok(wait_until(sub { sql('SELECT count(*) FROM session_outbox') == 0 }),
		'until the worker looks at it');
	wait_for_epoch($node, $redis);
	ok(!remembered($node, $redis, $token), 'not served later');

	set(redis_mode => 'strict');
	ok(wait_until(sub { info($node, 'cache') eq 'strict' }), 'strict again');
	$token = cached_session($node, $redis);
	kill 'STOP', $worker;
	my (undef, $took) = timed($node, "SELECT session_invalidate('$token')");
	ok( !remembered($node, $redis, $token),
		'strict, the worker hangs: not served');
	cmp_ok($took, '<', 3, sprintf('after %.2f s', $took));
	kill 'CONT', $worker;
	wait_for_epoch($node, $redis);
	ok(!remembered($node, $redis, $token), 'nor later');
}

# Settings
logged();
write_file($password_file, "wrong_$password\n");
$redis->call(qw(CLIENT KILL USER session_manager));
reason(qr/^not connected since .*: user or password refused: WRONGPASS/,
	'a wrong password');
ok(wait_until(sub { slurp_file($node->logfile, $log) =~ /WRONGPASS/ }),
	'which is logged');
sleep 3;
write_file($password_file, "$password\n", 0640);
reason(
	qr/redis_password_file is accessible to others/,
	'a password file that others can read');
write_file($password_file, "$password\n");
reason(qr/^connected/, 'the right password');
# as Kubernetes mounts a secret
rename $password_file, "$password_file.mounted" or die $!;
symlink "$password_file.mounted", $password_file or die $!;
$redis->call(qw(CLIENT KILL USER session_manager));
sleep 3;
reason(qr/^connected/, 'a password file that is a symbolic link');
unlink $password_file;
set(redis_timeout => '900ms', redis_password_file => "$password_file.gone");
reason(qr/could not read session_manager.redis_password_file: No such file/,
	'no password file');
sleep 3;
write_file($password_file, "$password\n");
set(redis_password_file => $password_file, redis_db => 99);
reason(qr/DB index is out of range/, 'a database that is not there');
set(redis_db => 1);
wait_for_epoch($node, $redis);
my $replica = RedisServer->new('replicaof 127.0.0.1 1');
set(redis_user => '',
	redis_password_file => '',
	redis_socket => $replica->socket);
reason(qr/the server is a replica, not the primary/, 'a replica');
# (by default its bus has the same port wherever the server has none)
my $cluster = RedisServer->new('cluster-enabled yes',
	'cluster-port ' . PostgreSQL::Test::Cluster::get_free_port());
set(redis_socket => $cluster->socket, redis_db => 0);
reason(qr/the server belongs to a Redis Cluster/, 'a server of a cluster');
set(redis_db => 1);
reason(
	qr/SELECT is not allowed in cluster mode/,
	'and of a database that it does not have');
my $port = PostgreSQL::Test::Cluster::get_free_port();
set(redis_socket => '', redis_host => '127.0.0.1', redis_port => $port);
reason(qr/Connection refused/, 'nobody there');
my $tcp = RedisServer->new(
	"port $port",
	'bind 127.0.0.1',
	'maxmemory 100mb',
	'appendonly yes',
	'save 60 1000');
reason(qr/^connected/, 'over TCP');
like(
	info($node, 'cache_warnings'),
	qr/keeps an append-only file.*noeviction.*saves to disk/,
	'warnings of how it is set up');
like(
	info($node, 'cache_memory'),
	qr/^\d+ of 104857600 bytes used$/,
	'and its memory');
set(redis_host => 'localhost');
wait_for_epoch($node, $tcp);
ok(wait_until(sub { info($node, 'cache_server') =~ /^connected/ }),
	'by a name');
my $lines = logged();
unlike($lines, qr/\Q$password\E/, 'no password in the log');
is(scalar(() = $lines =~ /WRONGPASS/g), 1, 'one line for each reason');
is( scalar(
		() = $lines =~ /could not read session_manager.redis_password_file/g),
	1,
	'however often it is tried');
unlike($lines, qr/(ERROR|FATAL|PANIC):/, 'and no error');

# What comes without having been asked for is the answer to nothing.
foreach my $case ([ "+OK\r\n", 1, qr/unexpected reply/ ],
	[ '$500000000' . "\r\n" . 'x' x 65536, 40, qr/reply too large/ ])
{
	my ($says, $times, $problem) = @$case;
	my ($place, $end) = impostor($tcp->socket, $says, $times);
	set(redis_host => '127.0.0.1', redis_port => $place);
	reason(qr/^not connected since .*: $problem/, "an impostor: $problem");
	$end->();
}
set(redis_socket => $redis->socket, redis_user => 'passwordless');
reason(qr/^connected/, 'a user that has no password');

# Another server: what the first one still has is not served either.
set(redis_socket => $redis->socket,
	redis_user => 'session_manager',
	redis_password_file => $password_file);
wait_for_epoch($node, $redis);
{
	my $token = cached_session($node, $redis);
	set(redis_socket => $tcp->socket);
	sleep 0.2;
	my (undef, $took) = timed($node, "SELECT session_invalidate('$token')");
	ok(!remembered($node, $redis, $token),
		'a change of servers: the old one serves nothing that is revoked');
	cmp_ok($took, '<', 3, 'in time');
	set(redis_socket => $redis->socket);
	wait_for_epoch($node, $redis);
	ok(!remembered($node, $redis, $token), 'nor when it comes back');
}
{
	my $token = cached_session($node, $redis);
	set(redis_mode => 'off');
	sleep 0.1;
	sql("SELECT session_invalidate('$token')");
	ok(!remembered($node, $redis, $token),
		'while it is switched off, nothing that is revoked is served');
	set(redis_mode => 'strict');
	wait_for_epoch($node, $redis);
	ok(!remembered($node, $redis, $token), 'nor when it is on again');
}

# A long outage with many revocations
my $crowd = sql(
	qq(
	SELECT count(*) FROM generate_series(1, $revocations) AS g, session_create('crowd' || g % 1000))
);
is($crowd, $revocations, "$revocations sessions");
my @some = map { cached_session($node, $redis) } 1 .. 20;
my $deads = counter($node, 'cache_dead_epoch_commits');
$redis->kill9;
my $start = time();
my $errors = '';
my $status = $node->psql(
	'postgres', q(
	DO $$
	DECLARE
		id uuid;
	BEGIN
		FOR id IN SELECT session_id FROM user_sessions WHERE user_id LIKE 'crowd%' LOOP
			IF session_invalidate_id(id) IS NULL THEN
				RAISE 'not revoked';
			END IF;
			COMMIT;
		END LOOP;
	END
	$$), stderr => \$errors);
is( $status, 0,
	sprintf('down: each is revoked in a transaction of its own (%.1f s)',
		time() - $start)) or diag($errors);
sql("SELECT session_invalidate('$_')") foreach @some;
my $left = sql('SELECT count(*) FROM session_outbox');
cmp_ok($left, '<', 10,
	"while no epoch is alive the outbox does not grow ($left)");
cmp_ok(counter($node, 'cache_dead_epoch_commits') - $deads,
	'>=', $revocations, 'those commits are counted');
sleep $outage - (time() - $start) if time() < $start + $outage;
$redis->start;
ok( wait_until(sub { defined epoch($node, $redis) }, 30),
	sprintf('a new epoch within 30 s of the end of an outage of %.0f s',
		time() - $start));
is(sql('SELECT count(*) FROM session_outbox'), 0, 'and the outbox is empty');
is(scalar(grep { remembered($node, $redis, $_) } @some),
	0, 'nothing is served');
is( sql("SELECT count(*) FROM user_sessions WHERE user_id LIKE 'crowd%' AND revoked_at IS NULL"
	),
	0,
	'none is left alive');

unlike(
	slurp_file($node->logfile),
	qr/PANIC|terminated by signal/,
	'nothing crashed');
$node->stop;
done_testing();
