# The cache in Redis, and copies of the database: subscribers, standbys,
# restored dumps.

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
use Time::HiRes qw(sleep);

my $redis = RedisServer->new;
my $key = random_key();
my $node = cached_node(
	'original', $redis,
	key => $key,
	streaming => 1,
	conf => "wal_level = logical\nmax_worker_processes = 16\n");

sub id { return substr(redis_key($_[0]), 8); }

# Logical replication applies changes under a cache of the subscriber's own.
my $subscriber = new_node(
	'subscriber',
	preload => 'session_manager',
	extension => 0,
	key => $key,
	conf => qq(
max_worker_processes = 16
session_manager.sweep_interval = 1h
session_manager.redis_mode = strict
session_manager.redis_socket = '@{[ $redis->socket ]}'
));
$subscriber->safe_psql('postgres',
	'SET client_min_messages = warning; CREATE EXTENSION session_manager CASCADE'
);
for my $table ('session_installation', 'session_keys')
{
	my $rows = $node->safe_psql('postgres', "COPY $table TO stdout");
	$subscriber->safe_psql('postgres',
		"COPY $table FROM stdin;\n$rows\n\\.\n");
}
$node->safe_psql('postgres',
	'CREATE PUBLICATION sessions FOR TABLE user_sessions, session_keys, session_outbox'
);
my $connstr = $node->connstr('postgres') =~ s{'}{''}gr;
$subscriber->safe_psql('postgres',
	"CREATE SUBSCRIPTION subscription CONNECTION '$connstr' PUBLICATION sessions WITH (copy_data = off)"
);
wait_for_epoch($subscriber, $redis);
isnt(epoch_key($subscriber), epoch_key($node),
	'the subscriber has its own key');

for my $sql (
	"UPDATE user_sessions SET revoked_at = now(), revoked_reason = 'admin' WHERE session_id = ':ID'",
	"SELECT session_invalidate(':TOKEN')",
	"SELECT session_update(':TOKEN', '{\"a\": 1}')",
	"DELETE FROM user_sessions WHERE session_id = ':ID'",
	'TRUNCATE user_sessions')
{
	my $token = create_session($node, 'ann');
	$node->wait_for_catchup('subscription');
	is(remember($subscriber, $redis, $token),
		'stored', 'cached by the subscriber');
	my $id = id($token);
	(my $text = $sql) =~ s/:TOKEN/$token/;
	$text =~ s/:ID/$id/;
	$node->safe_psql('postgres', $text);
	$node->wait_for_catchup('subscription');
	ok(!remembered($subscriber, $redis, $token),
		"applied, and not served: $sql");
	wait_for_epoch($subscriber, $redis);
}
ok( wait_until(
		sub {
			$node->safe_psql('postgres',
				'SELECT count(*) FROM session_outbox') == 0;
		}),
	'a publication does not hinder the outbox');
ok( wait_until(
		sub {
			$subscriber->safe_psql('postgres',
				'SELECT count(*) FROM session_outbox') == 0;
		}),
	'nor that of the subscriber');
$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION subscription');
$subscriber->stop;
$node->safe_psql('postgres', 'DROP PUBLICATION sessions');

# A standby
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
{
	my $token = create_session($node, 'ann');
	$node->wait_for_catchup('standby', 'replay');
	is(remember($node, $redis, $token), 'stored', 'cached by the primary');
	is( $standby->safe_psql(
			'postgres', "SELECT cacheable FROM session_get('$token')"),
		'f',
		'on a standby nothing may be cached');
	is( $standby->safe_psql(
			'postgres', 'SELECT mode FROM session_cache_settings()'),
		'off',
		'session_cache_settings');
	is( info($standby, 'cache'),
		'off: the server is a standby',
		'session_info');
	my $old = epoch($node, $redis);

	# promoted while the old primary goes on: two servers, two caches
	$standby->promote;
	isnt(wait_for_epoch($standby, $redis), $old, 'promoted, it has an epoch');
	is(epoch($node, $redis), $old, 'and the old primary keeps its own');
	ok( !remembered($standby, $redis, $token),
		'what one caches the other does not serve');
	is(remember($standby, $redis, $token), 'stored', 'both cache');
	ok(!remembered($node, $redis, $token), 'under one name for the session');
	$standby->safe_psql('postgres', "SELECT session_invalidate('$token')");
	ok(!remembered($standby, $redis, $token), 'a revocation there');
	ok(!remembered($node, $redis, $token), 'at worst empties the other');
}
$standby->stop;

# A dump, restored beside the original
$node->append_conf('postgresql.conf', "session_manager.redis_mode = async\n");
$node->reload;
ok(wait_until(sub { info($node, 'cache') eq 'async' }), 'async');
{
	my $token = create_session($node, 'ann');
	my $gone = create_session($node, 'ann');
	my $worker = $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'session_manager cache worker'"
	);
	my $revoker = connection($node);
	kill 'STOP', $worker;
	query($revoker, "SELECT session_invalidate('$gone')");
	$revoker->quit;
	is($node->safe_psql('postgres', 'SELECT count(*) FROM session_outbox'),
		1, 'dumped with something in the outbox');
	my $dump = $node->basedir . '/dump';
	$node->command_ok(
		[ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ],
		'pg_dump');
	kill 'CONT', $worker;
	ok( wait_until(
			sub {
				$node->safe_psql('postgres',
					'SELECT count(*) FROM session_outbox') == 0;
			}),
		'it is delivered');

	$node->safe_psql('postgres', 'CREATE DATABASE restored');
	$node->command_ok(
		[ 'pg_restore', '-d', $node->connstr('restored'), $dump ],
		'pg_restore');
	is($node->safe_psql('restored', 'SELECT count(*) FROM session_outbox'),
		0, 'the outbox is not restored');
	is(live($node, $token, 'restored'), 1, 'the token works in the copy');
	is( $node->safe_psql(
			'restored', 'SELECT installation_id FROM session_installation'),
		$node->safe_psql(
			'postgres', 'SELECT installation_id FROM session_installation'),
		'under the same keys');
	wait_for_epoch($node, $redis, 'restored');
	isnt(epoch_key($node, 'restored'),
		epoch_key($node), 'but the cache has another key');
	is(remember($node, $redis, $token), 'stored', 'cached by the original');
	$node->safe_psql('restored', "SELECT session_invalidate('$token')");
	is(live($node, $token), 1, 'ended in the copy, it lives in the original');
	my ($value, $epoch) =
	  @{ $redis->call('MGET', redis_key($token), epoch_key($node, 'restored'))
	  };
	isnt($value, "V$epoch", 'and is not served to who reads the copy');
}
$node->stop;

done_testing();
