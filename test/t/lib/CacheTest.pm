
=pod

=head1 NAME

CacheTest - what the TAP tests of the cache in Redis share

=head1 DESCRIPTION

Servers that keep a cache honest, and a reader of it: remember() is what an
application does to cache a session, remembered() what it does to be served one.
The reader seals nothing, as the tests look at when values count, not at what
is in them.

=cut

package CacheTest;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use RedisServer;
use SessionManagerTest;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(
  cached_node
  info
  counter
  redis_key
  epoch_key
  epoch
  wait_for_epoch
  remember
  remembered
  cached_session
  served_at
  served_until
);

# A server with the extension, and its cache in the Redis server.
sub cached_node
{
	my ($name, $redis, %params) = @_;
	my $mode = $params{mode} // 'strict';
	my $node = new_node(
		$name,
		%params,
		preload => 'session_manager',
		conf => ($params{conf} // '') . qq(
session_manager.sweep_interval = 1h
session_manager.redis_mode = $mode
session_manager.redis_socket = '@{[ $redis->socket ]}'
));
	wait_for_epoch($node, $redis)
	  if !defined $params{start} || $params{start};
	return $node;
}

sub info
{
	my ($node, $key, $dbname) = @_;
	return $node->safe_psql($dbname // 'postgres',
		"SELECT value FROM session_info() WHERE key = '$key'");
}

sub counter
{
	my ($node, $name, $dbname) = @_;
	$dbname //= 'postgres';
	return 0 +
	  $node->safe_psql('postgres',
		"SELECT $name FROM session_stats WHERE database_name = '$dbname'");
}

# The key of a session in Redis, by its token.
sub redis_key
{
	my ($token) = @_;
	my ($id) = token_parts($token);
	return 'session:' . join('-', unpack('H8 H4 H4 H4 H12', $id));
}

sub epoch_key
{
	my ($node, $dbname) = @_;
	return 'session:epoch:'
	  . $node->safe_psql($dbname // 'postgres',
		'SELECT installation FROM session_cache_settings()');
}

sub epoch
{
	my ($node, $redis, $dbname) = @_;
	return $redis->call('GET', epoch_key($node, $dbname));
}

# Wait until there is an epoch, and return it.
sub wait_for_epoch
{
	my ($node, $redis, $dbname) = @_;
	my $epoch;
	wait_until(
		sub {
			defined($epoch = eval { epoch($node, $redis, $dbname) });
		}
	) or die 'there is no epoch: ' . info($node, 'cache_server', $dbname);
	return $epoch;
}

# Read a session from the database and store it, as a reader does: a lease, the
# row, and the value if the row is cacheable and the lease still there.
# Something may be done between the read and the storing.  Returns what
# happened: 'stored', 'refused' or 'not cacheable'.
sub remember
{
	my ($node, $redis, $token, $meanwhile) = @_;
	my $key = redis_key($token);
	my $epoch = wait_for_epoch($node, $redis);
	my $nonce = 'L' . int(rand(1 << 30));
	my $leased = $redis->call(
		'EVAL',
		"local v = redis.call('GET', KEYS[1]) "
		  . "if v == 'T' then return 0 end "
		  . "redis.call('SET', KEYS[1], ARGV[1], 'PX', 60000) return 1",
		1,
		$key,
		$nonce);
	return 'tombstone' unless $leased;
	my $cacheable = $node->safe_psql('postgres',
		"SELECT cacheable FROM session_get('$token')");
	$meanwhile->() if $meanwhile;
	return 'not cacheable' unless $cacheable eq 't';
	return $redis->call(
		'EVAL',
		"if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end "
		  . "redis.call('SET', KEYS[1], ARGV[2], 'PX', 300000) return 1",
		1,
		$key,
		$nonce,
		"V$epoch") ? 'stored' : 'refused';
}

# Whether a reader would be served a session from the cache.
sub remembered
{
	my ($node, $redis, $token) = @_;
	my ($value, $epoch) =
	  @{ $redis->call('MGET', redis_key($token), epoch_key($node)) };
	return defined $value && defined $epoch && $value eq "V$epoch" ? 1 : 0;
}

# A session that is in the cache.  An epoch may end, or a lease run out, while it
# is put there.
sub cached_session
{
	my ($node, $redis, $user) = @_;
	my $result;
	for (1 .. 10)
	{
		my $token = create_session($node, $user // 'ann');
		$result = remember($node, $redis, $token);
		return $token
		  if $result eq 'stored' && remembered($node, $redis, $token);
	}
	die "not cached: $result";
}

# When a reader that knows the epoch's key is served a session, by Redis's clock;
# undef if it is not.
sub served_at
{
	my ($redis, $epoch_key, $token) = @_;
	my ($value, $epoch, $seconds, $us) = @{
		$redis->call(
			'EVAL',
			"local now = redis.call('TIME') "
			  . "local found = redis.call('MGET', KEYS[1], KEYS[2]) "
			  . 'return {found[1], found[2], now[1], now[2]}',
			2,
			redis_key($token),
			$epoch_key)
	};
	return undef
	  unless defined $value && defined $epoch && $value eq "V$epoch";
	return $seconds + $us / 1e6;
}

# When it was served last, looking for four seconds; 0: never.
sub served_until
{
	my ($redis, $epoch_key, $token) = @_;
	my $last = 0;
	for (my $end = time() + 4; time() < $end; usleep(10_000))
	{
		$last = served_at($redis, $epoch_key, $token) // $last;
	}
	return $last;
}

1;
