# The cache in Redis, while Redis works: what may be cached, and what takes it
# out of the cache again.

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
use Time::HiRes qw(usleep);

my $redis = RedisServer->new;
my $node =
  cached_node('cache', $redis, conf => "max_prepared_transactions = 5\n");

sub sql { return $node->safe_psql('postgres', @_); }

sub id
{
	my ($token) = @_;
	return substr(redis_key($token), 8);
}

# Run a statement on a session that is in the cache, and see what Redis holds of
# it when it returns; once more if an epoch has ended meanwhile, as it does when
# the worker does not get to run.  Returns the token and the value.
sub value_after
{
	my ($sql, $run) = @_;
	while (1)
	{
		my $epoch = wait_for_epoch($node, $redis);
		my $token = cached_session($node, $redis);
		my $id = id($token);
		(my $statement = $sql) =~ s/:TOKEN/$token/g;
		$statement =~ s/:ID/$id/g;
		$run->($statement);
		my $value = $redis->call('GET', redis_key($token));
		return ($token, $value)
		  if (epoch($node, $redis) // '') eq $epoch;
	}
}

# A statement after which a session has its tombstone.
sub forgets
{
	my ($name, $sql) = @_;
	my ($token, $value) = value_after($sql, \&sql);
	is($value, 'T', $name);
	return $token;
}

# A statement that leaves it in the cache.
sub keeps
{
	my ($name, $sql) = @_;
	my $run = sub {
		$node->psql('postgres', @_);
		usleep(100_000);
	};
	like((value_after($sql, $run))[1], qr/^V/, $name);
	return;
}

sub cacheable
{
	my ($token, $prefix) = @_;
	return sql(
		($prefix // '') . "SELECT cacheable FROM session_get('$token')");
}

# What session_info and session_cache_settings say
is(info($node, 'cache'), 'strict', 'session_info: mode');
like(info($node, 'cache_server'),
	qr/^connected since .* to Redis \d[\d.]+, primary$/, 'server');
like(info($node, 'cache_epoch'), qr/^[\d.]+ s old$/, 'epoch');
is(info($node, 'cache_outbox'), '0', 'outbox');
is(info($node, 'cache_warnings'), 'none', 'warnings');
like(
	sql('SELECT mode, installation, max_age FROM session_cache_settings()'),
	qr/^strict\|[0-9a-f-]{36}\|00:05:00$/,
	'session_cache_settings');
is( sql("SET session_manager.idle_timeout = '10min'; SELECT max_age FROM session_cache_settings()"
	),
	'00:02:30',
	'a quarter of the idle timeout');
is( sql("SET session_manager.idle_timeout = '1h'; SELECT max_age FROM session_cache_settings()"
	),
	'00:05:00',
	'if that is less');
is( sql("SET session_manager.cache_ttl = '20s'; SELECT max_age FROM session_cache_settings()"
	),
	'00:00:20',
	'cache_ttl');
my $epoch = epoch($node, $redis);
like($epoch, qr/^[0-9a-f]{32}$/, 'an epoch is 32 digits');
cmp_ok($redis->call('PTTL', epoch_key($node)),
	'<=', 2000, 'and lives two seconds');
# (on a busy machine one may be renewed too late, but not each)
ok( wait_until(
		sub {
			my $before = wait_for_epoch($node, $redis);
			sleep(3);
			return $before eq (epoch($node, $redis) // '');
		}),
	'and is renewed');
my $dir = $redis->dir;

# What may be cached
my $token = create_session($node, 'ann');
is(cacheable($token), 't', 'a session may be cached');
is(cacheable($token, 'BEGIN ISOLATION LEVEL REPEATABLE READ; '),
	'f', 'not at REPEATABLE READ');
is(cacheable($token, 'BEGIN ISOLATION LEVEL SERIALIZABLE; '),
	'f', 'not at SERIALIZABLE');
is(cacheable($token, "SET session_manager.client_binding = 'log'; "),
	'f', 'not with client_binding');
is( sql("BEGIN; SELECT session_update('$token', '{\"a\": 1}'); SELECT cacheable FROM session_get('$token'); COMMIT"
	) =~ /^f$/m,
	1,
	'not in the transaction that wrote it');
is( sql("SELECT cacheable FROM session_create('eve'), session_get(session_token)"
	),
	'f',
	'nor that made it');
is(cacheable($token, "SET session_manager.touch_interval = 0; "),
	'f', 'not when its use is to be recorded');
is( cacheable(
		sql("SELECT session_token FROM session_create('eve', actor_token => '$token')"
		)),
	'f',
	'not one in which somebody else acts');

# A copy of a session with an idle timeout of its own may be served for max_age,
# which is to leave a quarter of the timeout.
for my $idle ([ '8 min', 't' ], [ '479 s', 'f' ], [ '15 min', 't' ])
{
	is( cacheable(
			sql("SELECT session_token FROM session_create('eve', idle_timeout => '$idle->[0]')"
			)),
		$idle->[1],
		"an idle timeout of $idle->[0]");
}
sql(q(
	CREATE TABLE unused AS
	SELECT idle, share, session_token, session_id
	FROM unnest('{10 s,20 s,1 min,3 min,10 min,1 h}'::interval[]) AS idle, unnest('{0,0.2,0.4,0.49}'::float8[]) AS share,
		session_create('unused', jsonb_build_object('share', share), idle_timeout => idle);
	UPDATE user_sessions AS s SET last_seen_at = clock_timestamp() - u.idle * u.share FROM unused AS u WHERE u.session_id = s.session_id)
);
for my $settings (
	'cache_ttl = 300, touch_interval = 60, idle_timeout = 0',
	'cache_ttl = 30, touch_interval = 60, idle_timeout = 0',
	'cache_ttl = 5, touch_interval = 3600, idle_timeout = 0',
	'cache_ttl = 300, touch_interval = 3600, idle_timeout = 120')
{
	my $set = join ' ',
	  map { "SET session_manager.$_;" } split /, /, $settings;
	my ($cached, $too_long) = split /\|/, sql(
		qq($set
		SELECT count(*), count(*) FILTER (WHERE clock_timestamp() + max_age > g.last_seen_at + 0.75 * l.idle_timeout)
		FROM session_cache_settings(), unused AS u, session_get(u.session_token, touch => false) AS g,
			session_list('unused') AS l
		WHERE g.cacheable AND l.session_id = g.session_id));
	cmp_ok($cached, '>', 0, "$settings: some are cacheable");
	is($too_long, 0, 'none for too long');
}
is( sql("SET session_manager.touch_interval = 0; SELECT cacheable FROM session_get('$token', touch => false)"
	),
	'f',
	'even if it is not recorded');
my $writer = connection($node);

for my $end ('ROLLBACK', 'COMMIT')
{
	query($writer,
		"BEGIN; SELECT session_update('$token', '{\"end\": \"$end\"}')");
	is(cacheable($token), 'f', 'not while somebody writes it');
	query($writer, $end);
	is(cacheable($token), 't', "but after the $end");
}
query($writer, "BEGIN; SELECT 1 FROM user_sessions FOR UPDATE");
is(cacheable($token), 't', 'a mere lock is no matter');
query($writer, 'ROLLBACK');
query($writer,
	'BEGIN; SAVEPOINT s; DELETE FROM user_sessions; ROLLBACK TO s');
is(cacheable($token), 't', 'nor what was rolled back to a savepoint');
query($writer, 'ROLLBACK');
my $rotated =
  sql("SELECT session_token FROM session_refresh('$token', rotate => true)");
is(cacheable($token), 'f', 'not by the previous token');
is(cacheable($rotated), 'f', 'not at the first use of a new one');
is(cacheable($rotated), 't', 'but at the next');

# What takes it out
forgets('session_invalidate', "SELECT session_invalidate(':TOKEN')");
forgets('session_invalidate_id', "SELECT session_invalidate_id(':ID')");
forgets('session_invalidate_all', "SELECT session_invalidate_all('ann')");
forgets('session_update', "SELECT session_update(':TOKEN', '{\"a\": 2}')");
forgets('session_update_user',
	"SELECT session_update_user('ann', '{\"a\": 3}')");
forgets('a rotation', "SELECT session_refresh(':TOKEN', rotate => true)");
forgets('a shorter lifetime',
	"SELECT session_refresh(':TOKEN', ttl => '1 min')");
forgets('session_elevate', "SELECT session_elevate(':TOKEN', '{}')");
forgets('session_switch_tenant',
	"SELECT session_switch_tenant(':TOKEN', 'acme')");
forgets('session_erase', "SELECT session_erase('ann')");
forgets('eviction',
	"SET session_manager.max_sessions_per_user = 1; SELECT session_create('ann')"
);
forgets('DELETE', "DELETE FROM user_sessions WHERE session_id = ':ID'");
forgets('UPDATE of revoked_at',
	"UPDATE user_sessions SET revoked_at = now() WHERE session_id = ':ID'");
forgets('UPDATE of user_id',
	"UPDATE user_sessions SET user_id = 'mallory' WHERE session_id = ':ID'");
forgets(
	'UPDATE of sealed_data',
	"UPDATE user_sessions SET sealed_data = sealed_data || '\\x00'::bytea WHERE session_id = ':ID'"
);
forgets(
	'UPDATE of session_id',
	"UPDATE user_sessions SET session_id = gen_random_uuid() WHERE session_id = ':ID'"
);
forgets(
	'UPDATE to an earlier end',
	"UPDATE user_sessions SET expires_at = now() + '1 min' WHERE session_id = ':ID'"
);
forgets(
	'replica role',
	"SET session_replication_role = replica; DELETE FROM user_sessions WHERE session_id = ':ID'"
);
forgets(
	'MERGE of changes in one transaction',
	"BEGIN; SELECT session_update(':TOKEN', '{\"a\": 4}'); SELECT session_update(':TOKEN', '{\"a\": 5}'); SELECT session_invalidate(':TOKEN'); COMMIT"
);
forgets(
	'a subtransaction',
	"DO \$\$ BEGIN BEGIN PERFORM session_invalidate(':TOKEN'); EXCEPTION WHEN others THEN NULL; END; END \$\$"
);
sql("CREATE FUNCTION bystander() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER bystander AFTER UPDATE OR DELETE ON user_sessions FOR EACH ROW EXECUTE FUNCTION bystander()"
);
forgets(
	'with a trigger of somebody else',
	"SELECT session_invalidate(':TOKEN')");
forgets('and session_erase', "SELECT session_erase('ann')");
keeps(
	'while a use is nothing',
	"SET session_manager.touch_interval = 0; SELECT session_get(':TOKEN'); SELECT session_refresh(':TOKEN')"
);
sql('DROP TRIGGER bystander ON user_sessions');

# What does not
keeps('a use',
	"SET session_manager.touch_interval = 0; SELECT session_get(':TOKEN')");
keeps('a longer lifetime',
	"SELECT session_refresh(':TOKEN', ttl => '2 days')");
keeps('a patch that changes nothing',
	"SELECT session_update(':TOKEN', '{}')");
keeps(
	'UPDATE of a use',
	"UPDATE user_sessions SET last_seen_at = now(), ip = '::1' WHERE session_id = ':ID'"
);
keeps(
	'UPDATE to a later end',
	"UPDATE user_sessions SET expires_at = expires_at + '1 min' WHERE session_id = ':ID'"
);
keeps('UPDATE to the same',
	"UPDATE user_sessions SET version = version WHERE session_id = ':ID'");
keeps('a rollback', "BEGIN; SELECT session_invalidate(':TOKEN'); ROLLBACK");
keeps('an error',
	"BEGIN; SELECT session_invalidate(':TOKEN'); SELECT 1/0; COMMIT");
keeps('cleanup', "SELECT session_cleanup()");
keeps('activation of a key', "SELECT session_key_generate()");
keeps('re-sealing',
	"SELECT session_key_generate(); SELECT session_reencrypt()");
# (rolled back to a savepoint, it may go, but its commit must work)
$token = cached_session($node, $redis);
sql("BEGIN; SAVEPOINT s; SELECT session_invalidate('$token'); ROLLBACK TO s; SELECT session_create('bea'); COMMIT"
);
ok(live($node, $token), 'a rollback to a savepoint leaves the session alive');

# A late reader: its row was read before the revocation
for my $sql ("SELECT session_invalidate(':TOKEN')",
	"DELETE FROM user_sessions WHERE session_id = ':ID'")
{
	my $slow = create_session($node, 'ann');
	my $id = id($slow);
	(my $revoke = $sql) =~ s/:TOKEN/$slow/;
	$revoke =~ s/:ID/$id/;
	is(remember($node, $redis, $slow, sub { sql($revoke) }),
		'refused', "a late reader stores nothing: $sql");
	ok(!remembered($node, $redis, $slow), 'so it is not served');
}

# Everything at once: a new epoch
sub new_epoch
{
	my ($name, $sql, $afterwards) = @_;
	my $token = cached_session($node, $redis);
	my $old = epoch($node, $redis);
	(my $text = $sql) =~ s/:TOKEN/$token/g;
	sql($text);
	ok(!remembered($node, $redis, $token), "$name: not served");
	my $new = wait_for_epoch($node, $redis);
	isnt($new, $old, "$name: a new epoch");
	ok( !remembered($node, $redis, $token),
		"$name: not served under that either");
	sql($afterwards) if $afterwards;
	return;
}
sql("SELECT count(*) FROM generate_series(1, 1001) AS g, session_create('crowd', jsonb_build_object('g', g))"
);
new_epoch('more than 1,000 sessions',
	"SELECT session_invalidate_all('crowd')");
sql("SELECT count(*) FROM generate_series(1, 1000) AS g, session_create('crowd', jsonb_build_object('g', g))"
);
my $before = epoch($node, $redis);
is(sql("SELECT session_invalidate_all('crowd')"), '1000', '1,000 sessions');
is(epoch($node, $redis), $before, 'do without one');
is(counter($node, 'cache_waits') > 0, 1, 'waits are counted');
new_epoch('TRUNCATE', 'TRUNCATE user_sessions');
new_epoch('TRUNCATE in a transaction',
	'BEGIN; TRUNCATE user_sessions; SELECT 1; COMMIT');
new_epoch('DELETE of a key',
	"DELETE FROM session_keys WHERE state = 'added'");
write_file(key_file($node),
	slurp_file(key_file($node))
	  . join('', map { "$_:" . random_key() . "\n" } 7, 8));
sql('SELECT session_key_add(7); SELECT session_key_activate(7)');
new_epoch(
	'session_key_revoke',
	'SELECT session_key_revoke(7)',
	'SELECT session_key_activate(1)');
# A reader that asks while a key is being revoked is served nothing that stays.
sql('SELECT session_key_add(8); SELECT session_key_activate(8)');
$token = create_session($node, 'ann');
query($writer, "BEGIN; SELECT session_key_revoke(8)");
is(cacheable($token), 't', 'a key that is being revoked still holds');
query($writer, 'COMMIT');
is(live($node, $token), 0, 'then not');
sql('SELECT session_key_activate(1)');

# PREPARE TRANSACTION
$token = cached_session($node, $redis);
like(
	failure(
		$node,
		"BEGIN; SELECT session_invalidate('$token'); PREPARE TRANSACTION 'p'"
	),
	qr/^0A000: cannot prepare a transaction that has changed sessions\n.*\n.*HINT:.*redis_mode/s,
	'a transaction that changed a session is not prepared');
ok(live($node, $token), 'and is rolled back');
sql("BEGIN; SELECT session_create('bea'); PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'"
);
pass('one that made a session is');

# In the outbox while it is committed and not told, then not
ok(wait_until(sub { sql('SELECT count(*) FROM session_outbox') == 0 }),
	'the outbox is empty');
is( counter($node, 'cache_tombstones'),
	counter($node, 'cache_acknowledged'),
	'every tombstone was acknowledged');
is(counter($node, 'cache_failures'), 0, 'without a failure');

# Asynchronously
$node->append_conf('postgresql.conf', "session_manager.redis_mode = async\n");
$node->reload;
ok(wait_until(sub { info($node, 'cache') eq 'async' }),
	'the mode is changed by a reload');
my $waits = counter($node, 'cache_waits');
for my $sql (
	"SELECT session_invalidate(':TOKEN')",
	"UPDATE user_sessions SET revoked_at = now()",
	'TRUNCATE user_sessions',
	"DO \$\$ BEGIN PERFORM session_invalidate(':TOKEN'); END \$\$")
{
	$token = cached_session($node, $redis);
	(my $text = $sql) =~ s/:TOKEN/$token/;
	sql($text);
	ok(wait_until(sub { !remembered($node, $redis, $token) }, 3),
		"async: $sql");
}
is(counter($node, 'cache_waits'), $waits, 'without a wait');
ok(wait_until(sub { sql('SELECT count(*) FROM session_outbox') == 0 }),
	'the outbox is empty');

# Off
$token = cached_session($node, $redis);
$node->append_conf('postgresql.conf', "session_manager.redis_mode = off\n");
$node->reload;
ok(wait_until(sub { info($node, 'cache') eq 'off' }), 'switched off');
is(cacheable($token), 'f', 'nothing may be cached');
ok(!remembered($node, $redis, $token), 'nor is anything served');
is(sql('SELECT mode FROM session_cache_settings()'),
	'off', 'session_cache_settings');
sql("SELECT session_invalidate('$token')");
is(sql('SELECT count(*) FROM session_outbox'),
	0, 'nothing goes into the outbox');
sql("BEGIN; SELECT session_create('p'); SELECT session_update_user('p', '{\"a\": 6}'); PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'"
);
pass('and PREPARE TRANSACTION works');
# Whoever began to revoke a key while there was no cache holds up the first epoch.
write_file(key_file($node),
	slurp_file(key_file($node)) . '9:' . random_key() . "\n");
sql('SELECT session_key_add(9); SELECT session_key_activate(9)');
$token = create_session($node, 'ann');
sql('SELECT session_key_activate(1)');
query($writer, 'BEGIN; SELECT session_key_revoke(9)');
$node->append_conf('postgresql.conf',
	"session_manager.redis_mode = strict\n");
$node->reload;
ok(wait_until(sub { info($node, 'cache_server') =~ /waiting|connected/ }),
	'on again');
sleep(3);
is(epoch($node, $redis),
	undef,
	'no epoch while a key is being revoked by somebody who saw it off');
query($writer, 'COMMIT');
wait_for_epoch($node, $redis);
is( remember($node, $redis, $token),
	'not cacheable',
	'then there is one, and the session is dead');
forgets('on again', "SELECT session_invalidate(':TOKEN')");
$writer->quit;

unlike(slurp_file($node->logfile),
	qr/(FATAL|PANIC|WARNING):/, 'nothing bad in the log');
is(scalar(() = slurp_file($node->logfile) =~ /is connected to Redis at/g),
	2, 'and of each connection one line');
$node->stop;
done_testing();
