# A transaction that logged somebody in, or changed a session, and stays open
# holds up what looks at all sessions of a user, a tenant or everybody for
# session_manager.login_wait at most.  These fail then, for a revocation that is
# acknowledged must hold, and do all of their work when they are called again.
# The same holds for a login behind a revocation that stays open, and for
# session_key_retire.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use SessionManagerTest;
use Test::More;

my $node = new_node('main', conf => "session_manager.login_wait = '100ms'");
my $open = connection($node);
my $other = connection($node);

my %functions = (
	session_invalidate_all => q(SELECT session_invalidate_all('ann')),
	session_invalidate_tenant => q(SELECT session_invalidate_tenant('acme')),
	session_invalidate_everything => 'SELECT session_invalidate_everything()',
	session_update_user => q(SELECT session_update_user('ann', '{"n": 1}')),
	session_erase => q(SELECT session_erase('ann')),
	session_export => q(SELECT session_export('ann') IS NULL));

# What keeps them waiting
my %openers = (
	'a login' => q(SELECT FROM session_create('ann', tenant_id => 'acme')),
	'a login among many' =>
	  q(SELECT FROM generate_series(1, 300) AS i, session_create(CASE i WHEN 300 THEN 'ann' ELSE 'u' || i END, tenant_id => 'acme')),
	'a change of a session' =>
	  q(SELECT session_update_user('ann', '{"n": 2}')));

for my $opener (sort keys %openers)
{
	for my $function (sort keys %functions)
	{
		# an export reads what is committed
		next if $function eq 'session_export' && $opener =~ /change/;

		create_session($node, 'ann', q('{}', tenant_id => 'acme'));
		query($open, "BEGIN; $openers{$opener}");
		my ($output, $errors) = query($other, $functions{$function});
		like(
			$errors,
			qr/ERROR:  55P03:.*HINT:  A transaction that logs a user in or changes a session is still open/s,
			"$function fails while $opener is open");
		is(query($other, 'SHOW lock_timeout'),
			'0', 'the caller\'s lock_timeout is as before');
		query($open, 'COMMIT');
		(undef, $errors) = query($other, $functions{$function});
		is($errors, '', 'and works when it is over');
		is( $node->safe_psql(
				'postgres', "SELECT session_active_count(user_id => 'ann')"),
			'0',
			'ending the sessions of both') if $function =~ /invalidate/;
		$node->safe_psql('postgres',
			'SELECT session_invalidate_everything()');
	}
}

# A shorter lock_timeout of the caller's holds, and 0 waits on.
query($open, "BEGIN; SELECT FROM session_create('ann')");
query($other,
	"SET lock_timeout = '10ms'; SET session_manager.login_wait = 0");
like((query($other, q(SELECT session_invalidate_all('ann'))))[1],
	qr/55P03/, 'a lock_timeout of the caller is obeyed');
is(query($other, 'SHOW lock_timeout'), '10ms', 'and kept');
query($open, 'COMMIT');
is(query($other, q(SELECT session_invalidate_all('ann'))),
	'1', 'and the session ends at the next call');

# Other users are not held up.
query($other, 'RESET lock_timeout; RESET session_manager.login_wait');
query($open, "BEGIN; SELECT FROM session_create('ann')");
is((query($other, q(SELECT session_invalidate_all('bob'))))[1],
	'', 'another user\'s sessions can be ended');
query($open, 'ROLLBACK');

# The other way round: logins, and what replaces or ends a session as they do,
# behind what is left open.
$node->safe_psql('postgres', 'SELECT session_invalidate_everything()');
my $token = create_session($node, 'ann');
my %logins = (
	session_create => q(SELECT count(*) FROM session_create('ann')),
	'session_create with a limit' =>
	  q(SELECT count(*) FROM set_config('session_manager.max_sessions_per_user', '9', true), session_create('ann')),
	session_switch_tenant =>
	  "SELECT status FROM session_switch_tenant('$token', 'acme')",
	session_invalidate => "SELECT session_invalidate('$token')");
for my $opener (
	q(SELECT session_invalidate_all('ann')),
	q(SELECT session_update_user('ann', '{"n": 3}')))
{
	for my $login (sort keys %logins)
	{
		query($open, "BEGIN; $opener");
		my (undef, $errors) = query($other, "BEGIN; $logins{$login}");
		like(
			$errors,
			qr/ERROR:  55P03:.*HINT:  A transaction that logs a user in or changes a session is still open/s,
			"$login fails while $opener is open");
		query($other, 'ROLLBACK');
		is(query($other, 'SHOW lock_timeout'),
			'0', 'the caller\'s lock_timeout is as before');
		is( (   query(
					$other,
					q(BEGIN; SELECT count(*) FROM session_create('bob'); ROLLBACK)
				))[1],
			'',
			'others log in');
		query($open, 'ROLLBACK');
	}
}
is(query($other, $logins{session_switch_tenant}),
	'rotated', 'and it works when that is over');

query($open, "BEGIN; SELECT FROM session_create('ann')");
like(
	(query($other, 'SELECT session_key_retire(1)'))[1],
	qr/ERROR:  55P03:/,
	'session_key_retire fails while sessions are being written');
query($open, 'COMMIT');
like(
	(query($other, 'SELECT session_key_retire(1)'))[1],
	qr/ERROR:  55000:/,
	'and says what it has to say when that is over');

# Whatever locks both tables locks user_sessions first, or it would deadlock with a
# TRUNCATE of both.
$node->safe_psql('postgres', 'SELECT session_invalidate_everything()');
$token = create_session($node, 'ann', q('{}', tenant_id => 'acme'));
my %takers = (
	%functions,
	session_cleanup => 'SELECT session_cleanup()',
	session_create => q(SELECT session_create('ann')),
	session_refresh => qq(SELECT session_refresh('$token', true)),
	session_elevate => qq(SELECT session_elevate('$token', '{}')),
	session_switch_tenant =>
	  qq(SELECT session_switch_tenant('$token', 'globex')),
	session_invalidate => qq(SELECT session_invalidate('$token')),
	session_reencrypt => 'SELECT session_reencrypt()');
query($other, 'SET session_manager.login_wait = 0');
for my $function (sort keys %takers)
{
	my $pid = query($other, 'SELECT pg_backend_pid()');
	query($open, 'BEGIN; LOCK user_sessions');
	$other->query_until(qr/sent/,
		"BEGIN;\n\\echo sent\n$takers{$function};\nROLLBACK;\n");
	$node->poll_query_until('postgres',
		"SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $pid"
	) or die "$function does not wait";
	is( $node->safe_psql(
			'postgres',
			"SELECT count(*) FROM pg_locks WHERE pid = $pid AND granted AND relation IN (SELECT relid FROM pg_partition_tree('session_events'))"
		),
		'0',
		"$function waits for user_sessions without a lock on session_events");
	query($open, 'COMMIT');
	query($other, 'SELECT 1');
}

$open->quit;
$other->quit;
done_testing();
