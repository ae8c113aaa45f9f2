# With revoke_commit = remote_apply, whoever has revoked a session or replaced a
# token finds it so on the standby at once, and waits there no longer than
# revoke_commit_timeout.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;
use Time::HiRes qw(time);

my $primary = new_node(
	'primary',
	preload => 'session_manager',
	streaming => 1,
	conf => 'session_manager.rotation_grace = 0');
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
# what it is asked while it catches up must not be canceled
$standby->append_conf('postgresql.conf', 'max_standby_streaming_delay = -1');
$standby->start;
$primary->append_conf(
	'postgresql.conf', q(
	synchronous_standby_names = 'standby'
	synchronous_commit = local
));
$primary->reload;
$primary->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'")
  or die 'the standby is not synchronous';

my $apply = 'SET session_manager.revoke_commit = remote_apply';

sub paused
{
	my ($whether) = @_;
	$standby->safe_psql('postgres',
		'SELECT pg_wal_replay_' . ($whether ? 'pause()' : 'resume()'));
	$standby->poll_query_until('postgres',
		q(SELECT pg_get_wal_replay_pause_state() = ')
		  . ($whether ? 'paused' : 'not paused') . q('))
	  or die 'replay does not pause or resume';
	return;
}

sub replay
{
	$primary->wait_for_catchup('standby', 'replay');
	return;
}

# Each way of ending a session or replacing its token: what it does, and how
# many live sessions the standby then finds for the token.
my %ways = (
	session_invalidate => q(SELECT session_invalidate('%s')),
	session_invalidate_all => q(SELECT session_invalidate_all('%s')),
	session_invalidate_tenant => q(SELECT session_invalidate_tenant('%s')),
	session_elevate => q(SELECT session_elevate('%s', '{}')),
	session_switch_tenant => q(SELECT session_switch_tenant('%s', 'other')),
	session_erase => q(SELECT session_erase('%s')),
	'a statement of more than one' =>
	  q(BEGIN; SELECT session_invalidate('%s'); COMMIT),
	'a savepoint' =>
	  q(BEGIN; SAVEPOINT s; SELECT session_invalidate('%s'); RELEASE s; COMMIT)
);

# Some take the user or the tenant, who are called the same, the others the token.
sub argument
{
	my ($way, $user, $token) = @_;
	return $way =~ /_all$|invalidate_tenant$|erase/ ? $user : $token;
}

my $rounds = 5;
for my $way (sort keys %ways)
{
	my $stale = 0;
	for my $round (1 .. $rounds)
	{
		my $user = "$way $round";
		my $token = $primary->safe_psql('postgres',
			"SELECT session_token FROM session_create('$user', tenant_id => '$user')"
		);
		replay();
		$primary->safe_psql(
			'postgres',
			"$apply; " . sprintf $ways{$way},
			argument($way, $user, $token));
		$stale += live($standby, $token);
	}
	is($stale, 0, "$way: the standby knows at once");
}

# A rotation: the new token is known
my $missing = 0;
for my $round (1 .. $rounds)
{
	my $old = create_session($primary, 'rotating');
	my $new = $primary->safe_psql('postgres',
		"$apply; SELECT session_token FROM session_refresh('$old', rotate => true)"
	);
	$missing += 1 - live($standby, $new);
}
is($missing, 0, 'a new token works on the standby at once');

# What is rolled back, and what comes after
my $other = create_session($primary, 'other');
is( $primary->safe_psql(
		'postgres',
		"$apply; BEGIN; SELECT session_key_revoke(max(key_id)) FROM session_keys; ROLLBACK; SELECT 1"
	),
	"\n1",
	'what is rolled back waits for nothing');

# It is for these transactions alone.
is( $primary->safe_psql(
		'postgres',
		"$apply; SELECT session_invalidate('$other'); SHOW synchronous_commit"
	),
	"other\nlocal",
	'synchronous_commit is itself again in the next transaction');

# A session whose former token is replayed below
my $replayed = create_session($primary, 'replayed');
my $successor = $primary->safe_psql('postgres',
	"SELECT session_token FROM session_refresh('$replayed', rotate => true)");
$primary->safe_psql('postgres', "SELECT FROM session_get('$successor')");

# A standby that does not replay
paused(1);
my $token = create_session($primary, 'paused');
my ($out, $err);
my $began = time;
is( $primary->psql(
		'postgres',
		"$apply; SET session_manager.revoke_commit_timeout = '1s'; SELECT session_invalidate('$token');
		SELECT pg_sleep(0.5), 'not canceled'",
		stdout => \$out,
		stderr => \$err),
	0,
	'it gives up waiting');
cmp_ok(time - $began, '>=', 1, 'after its limit');
is( $out,
	"paused\n|not canceled",
	'the session has ended, the next statement runs');
like(
	$err,
	qr/WARNING:  no standby has confirmed within 1000 ms/,
	'and a warning says so');
is(live($primary, $token), '0', 'on the primary');

# Each of the ways waits: the standby could have been quick above.
my %waiting = (
	%ways,
	'session_refresh with a new token' =>
	  q(SELECT session_refresh('%s', rotate => true)));
for my $way (sort keys %waiting)
{
	my $of_paused = $primary->safe_psql('postgres',
		"SELECT session_token FROM session_create('$way', tenant_id => '$way')"
	);
	$primary->psql(
		'postgres',
		"$apply; SET session_manager.revoke_commit_timeout = '100ms'; "
		  . sprintf($waiting{$way}, argument($way, $way, $of_paused)),
		stderr => \$err);
	like($err, qr/no standby has confirmed/, "$way: waits");
}

# Whatever synchronous_commit is
$primary->safe_psql(
	'postgres', q(
	CREATE FUNCTION revoke_off(t text) RETURNS text LANGUAGE sql SET synchronous_commit = off
	AS 'SELECT session_invalidate(t)'));
my %off = (
	'set before' =>
	  q(SET synchronous_commit = off; SELECT session_invalidate('%s')),
	'set by a function for itself' => q(SELECT revoke_off('%s')),
	'set afterwards' =>
	  q(BEGIN; SELECT session_invalidate('%s'); SET synchronous_commit = off; COMMIT),
	'set afterwards for the transaction' =>
	  q(BEGIN; SELECT session_invalidate('%s'); SET LOCAL synchronous_commit = off; COMMIT)
);
for my $how (sort keys %off)
{
	$token = create_session($primary, $how);
	$primary->psql(
		'postgres',
		"$apply; SET session_manager.revoke_commit_timeout = '100ms'; "
		  . sprintf($off{$how}, $token),
		stderr => \$err);
	like($err, qr/no standby has confirmed/,
		"synchronous_commit = off, $how");
}

# What workers end has no caller who would wait.
$primary->append_conf(
	'postgresql.conf', q(
	session_manager.revoke_commit = remote_apply
	session_manager.revoke_commit_timeout = 0
));
$primary->reload;
$primary->safe_psql('postgres',
	"BEGIN; SELECT status FROM session_refresh('$replayed'); ROLLBACK");
ok(wait_until(sub { !live($primary, $successor) }), 'a worker does not wait');
$primary->append_conf('postgresql.conf',
	'session_manager.revoke_commit = local');
$primary->reload;

# Others do not wait
$began = time;
my $local = create_session($primary, 'local');
$primary->safe_psql('postgres', "SELECT session_invalidate('$local')");
$primary->safe_psql('postgres',
	"$apply; SELECT session_update('$local', '{}')");
pass('what ends no session waits for no standby');

# A wait without a limit
my $waiting = create_session($primary, 'waiting');
my $session = $primary->background_psql('postgres', on_error_stop => 0);
$session->query_safe($apply);
$session->query_safe("SET session_manager.revoke_commit_timeout = 0");
$session->query_until(qr/^asked$/m,
	"\\echo asked\nSELECT session_invalidate('$waiting');\n");
# whose limit is not for the waits of others
my $other_write = $primary->background_psql('postgres', on_error_stop => 0);
$other_write->query_safe($apply);
$other_write->query_safe("SET session_manager.revoke_commit_timeout = '1s'");
$other_write->query_safe('SET synchronous_commit = remote_apply');
$token = create_session($primary, 'kept');
$other_write->query_until(qr/^asked$/m,
	"\\echo asked\nBEGIN; SAVEPOINT s; SELECT session_invalidate('$token'); ROLLBACK TO s;"
	  . " CREATE TABLE other (a integer); COMMIT;\n");
my $waits =
  "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND backend_type = 'client backend'";
$primary->poll_query_until('postgres', "SELECT count(*) = 2 $waits")
  or die 'they do not wait';
sleep 2;
is($primary->safe_psql('postgres', "SELECT count(*) $waits"),
	'2', 'without a limit it waits, and so does what has ended no session');
paused(0);
$session->quit;
$other_write->quit;
replay();
is(live($standby, $waiting), '0', 'until the standby goes on');

# Without standbys that are waited for, there is nothing to wait for.
$primary->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$primary->reload;
paused(1);
$token = create_session($primary, 'alone');
is( $primary->safe_psql(
		'postgres', "$apply; SELECT session_invalidate('$token')"),
	'alone',
	'nothing is waited for without synchronous standbys');
paused(0);

done_testing();
