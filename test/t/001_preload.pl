# The extension gives the same results whether or not its library is
# preloaded: one script through a session's whole life, its full output known,
# runs on a server of each kind.  No worker serves its database: a pass in the
# middle of the script would sweep what the script is to clean up.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $script = <<'EOS';
SELECT session_id AS id, session_token AS tok FROM session_create('auth0|ann',
	'{"name": "Ann Ünal", "cart": [1, 2], "plan": "free"}', '1 hour', '192.0.2.7', 'Firefox', 'acme', '{"amr": ["pwd"]}') \gset
SELECT 'bucket', session_bucket('auth0|ann') = session_bucket(:'id'::uuid);
SELECT 'get', session_id = :'id', user_id, tenant_id, data, version, auth, expires_at - created_at FROM session_get(:'tok');
SELECT 'digest', user_id FROM session_get(session_token_digest(:'tok'));
SELECT 'update', * FROM session_update(:'tok', '{"cart": null, "plan": "pro"}');
SELECT session_update(:'tok', '{}', 1);
\echo stale :SQLSTATE
SELECT 'replace', * FROM session_update(:'tok', '{"a": 1}', 2, true);
SELECT 'refresh', status, session_id = :'id', session_token FROM session_refresh(:'tok');
SELECT status AS s, session_token AS tok2 FROM session_refresh(:'tok', true) \gset
\echo rotate :s
SELECT 'previous', count(*) FROM session_get(:'tok');
SELECT 'again', status, session_token FROM session_refresh(:'tok', true);
SELECT 'successor', user_id, data, version FROM session_get(:'tok2');
SELECT session_token AS tok3 FROM session_elevate(:'tok2', '{"amr": ["pwd", "otp"]}') \gset
SELECT 'elevated', count(*) FROM session_get(:'tok2');
SELECT 'elevated', auth, data FROM session_get(:'tok3');
BEGIN;
SELECT 'bind', session_bind(:'tok3'), session_user_id(), session_tenant_id(), session_id() = :'id';
SELECT 'bound', session_user_id(), session_tenant_id(), session_id() = :'id';
COMMIT;
SELECT 'unbound', session_user_id(), session_tenant_id(), session_id();
BEGIN READ ONLY;
SELECT 'read only', user_id FROM session_get(:'tok3');
SELECT session_invalidate(:'tok3');
\echo read only :SQLSTATE
ROLLBACK;
SELECT 'list', tenant_id, is_current, ip, user_agent, auth, ended_at, ended_reason FROM session_list('auth0|ann', :'tok3');
SELECT 'invalidate', session_invalidate(:'tok3'), session_invalidate(:'tok3');
SELECT 'ended', count(*) FROM session_get(:'tok3');
SELECT 'ended', count(*) FROM session_update(:'tok3', '{}');
SELECT 'ended', status FROM session_refresh(:'tok3');
SELECT 'status', session_status(:'tok3'), session_status('sm1_x');
SELECT 'events', event, count(*) FROM session_history(:'id') GROUP BY event ORDER BY event;
SET session_manager.rotation_grace = 0;
SELECT session_token AS old FROM session_create('bob') \gset
SELECT session_token AS new FROM session_refresh(:'old', true) \gset
SELECT 'in use', count(*) FROM session_get(:'new');
SELECT 'replay', status, session_token FROM session_refresh(:'old', true);
SELECT 'replayed', count(*) FROM session_get(:'new');
RESET session_manager.rotation_grace;
SET session_manager.max_sessions_per_user = 2;
SELECT session_token AS first FROM session_create('carl') \gset
SELECT session_token AS second FROM session_create('carl') \gset
SELECT session_token AS third FROM session_create('carl') \gset
SELECT 'evicted', count(*) FROM session_get(:'first');
SELECT 'spared', count(*) FROM session_get(:'second');
SET session_manager.on_limit = 'deny';
SELECT session_create('carl');
\echo limit :SQLSTATE
RESET session_manager.max_sessions_per_user;
SELECT 'everybody', session_update_user('carl', '{"plan": "pro"}');
SELECT 'everybody', data FROM session_get(:'second');
SELECT 'all', session_invalidate_all('carl', :'third');
SELECT 'all', session_active_count(user_id => 'carl');
SELECT session_create('dora', tenant_id => 'acme');
SELECT 'tenant', session_invalidate_tenant('acme');
SELECT session_token AS brief FROM session_create('dora', ttl => '1 millisecond') \gset
SELECT pg_sleep(0.01);
SELECT 'expired', session_status(:'brief'), count(*) FROM session_get(:'brief');
SELECT 'cleanup', sessions_deleted > 0 FROM session_cleanup();
SELECT 'export', jsonb_typeof(session_export('carl')::jsonb);
SELECT 'erase', session_erase('carl') > 0;
SELECT 'erased', count(*) FROM session_history(user_id => 'carl');
SELECT session_create(NULL);
\echo null :SQLSTATE
SELECT session_create('');
\echo empty :SQLSTATE
SELECT session_create('x', '[]');
\echo array :SQLSTATE
SELECT session_create('x', jsonb_build_object('a', repeat('x', 70000)));
\echo large :SQLSTATE
SELECT 'null', count(*) FROM session_get(NULL);
SELECT 'key', key_id, state, available FROM session_keys();
EOS

# Rows that are only there to be acted on print a composite value: drop them.
sub run_script
{
	my ($node) = @_;
	my ($status, $stdout, $stderr) =
	  $node->psql('postgres', $script, on_error_stop => 0);
	return join "\n", grep { /^[a-z]/ } split /\n/, $stdout;
}

my $expected = do { local $/; <DATA> };
chomp $expected;

foreach my $preload (0, 1)
{
	my $kind = $preload ? 'preloaded' : 'not preloaded';
	my $node = new_node(
		"preload$preload",
		preload => $preload ? 'session_manager' : '',
		conf => "session_manager.databases = 'another'");

	is(run_script($node), $expected, "$kind: results of a whole life");
	like(
		$node->safe_psql(
			'postgres',
			"SELECT value FROM session_info() WHERE key = 'preloaded'"),
		$preload ? qr/^yes/ : qr/^no/,
		"$kind: session_info() says so");
	$node->stop;
}

done_testing();

__DATA__
bucket|t
get|t|auth0|ann|acme|{"cart": [1, 2], "name": "Ann Ünal", "plan": "free"}|1|{"amr": ["pwd"]}|01:00:00
digest|auth0|ann
update|2|{"name": "Ann Ünal", "plan": "pro"}
stale SM001
replace|3|{"a": 1}
refresh|extended|t|
rotate rotated
previous|1
again|already_rotated|
successor|auth0|ann|{"a": 1}|3
elevated|0
elevated|{"amr": ["pwd", "otp"]}|{"a": 1}
bind|t|auth0|ann|acme|t
bound|auth0|ann|acme|t
unbound|||
read only|auth0|ann
read only 25006
list|acme|t|192.0.2.7|Firefox|{"amr": ["pwd", "otp"]}||
invalidate|auth0|ann|
ended|0
ended|0
ended|ended
status|revoked|malformed
events|created|1
events|elevated|1
events|invalidated|1
events|refreshed|1
events|rejected|1
events|rotated|1
events|updated|2
in use|1
replay|reused|
replayed|0
evicted|0
spared|1
limit SM002
everybody|2
everybody|{"plan": "pro"}
all|1
all|1
tenant|1
expired|expired|0
cleanup|t
export|object
erase|t
erased|0
null 22004
empty 22023
array 22023
large 54000
null|0
key|1|active|t
