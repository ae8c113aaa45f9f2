# Four servers, each with a quarter of the sessions, behind the functions of
# session_manager_router and a pooler.  Each call goes where its session is, and
# errors come back as the shard raised them.  What concerns all of them is done
# wherever it can be, with a shard that is stopped, and with one that hangs.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;
use Time::HiRes qw(time);

plan skip_all => 'PL/Proxy is not installed for this PostgreSQL'
  unless has_module('plproxy');
my ($pgbouncer) = grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}),
  '/usr/sbin';
plan skip_all => 'pgbouncer is not installed' unless defined $pgbouncer;

# What docs/router.md says to do: on the shards, in the router, in pgbouncer.ini.
my $page = slurp_file('docs/router.md');
my ($on_shards, $on_router) = $page =~ /^```sql\n(.*?)^```/msg;
my ($pooling) = $page =~ /^```ini\n(.*?)^```/ms;
my ($create, $grant) =
  $on_router =~ /^(SELECT session_router_create.*?;\n)(.*)/ms;

my $shards = 4;
my $log_all = "log_statement = all\nlog_parameter_max_length_on_error = -1\n";
my $key = random_key();
my @shard = map {
	new_node(
		"shard$_",
		preload => 'session_manager',
		key => $key,
		extension => 0,
		conf => "session_manager.shard = '$_/$shards'\n$log_all")
} 1 .. $shards;
my $router = new_node(
	'router',
	preload => 'session_manager',
	extension => 0,
	conf => $log_all);

# One installation: its row and its keys are copied before the first session.
install_extension($shard[0], 'postgres');
my %copied =
  map { $_ => $shard[0]->safe_psql('postgres', "COPY $_ TO stdout") }
  qw(session_installation session_keys);
foreach my $node (@shard)
{
	$node->safe_psql(
		'postgres', q(
		SET client_min_messages = warning;
		CREATE EXTENSION IF NOT EXISTS session_manager CASCADE;) . $on_shards);
	next if $node == $shard[0];
	$node->safe_psql('postgres', "COPY $_ FROM stdin;\n$copied{$_}\n\\.\n")
	  foreach qw(session_installation session_keys);
}

# A pooler before each shard: it gives up on one that hangs, as PL/Proxy does not.
my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $port = $router->port;
write_file("$dir/users.txt", qq("router" ""\n));
write_file(
	"$dir/pgbouncer.ini",
	join(
		"\n",
		'[databases]',
		(   map {
				"shard$_ = host=@{[$shard[$_ - 1]->host]} port=@{[$shard[$_ - 1]->port]} dbname=postgres"
			} 1 .. $shards),
		'[pgbouncer]',
		"unix_socket_dir = $dir",
		'listen_addr =',
		"listen_port = $port",
		'auth_type = trust',
		"auth_file = $dir/users.txt",
		'default_pool_size = 5',
		$pooling,
		"logfile = $dir/pgbouncer.log",
		''));
my $pooler = IPC::Run::start([ $pgbouncer, "$dir/pgbouncer.ini" ],
	'<', '/dev/null', '>', "$dir/pgbouncer.out", '2>&1');
my @frozen;

END
{
	my $exit_code = $?;
	kill 'CONT', @frozen;
	$pooler->kill_kill if defined $pooler;
	$? = $exit_code;
}

wait_until(
	sub {
		-S "$dir/.s.PGSQL.$port"
		  && $shard[0]->psql('postgres', 'SELECT 1',
			connstr => "host=$dir port=$port user=router dbname=shard1") == 0;
	}) or die 'pgbouncer does not start';

my @connection =
  map { "host=$dir port=$port dbname=shard$_" } 1 .. $shards;
$create =~ s/host=\S+ port=\d+/host=$dir port=$port/g;

# What psql prints as a role, with errors and warnings.
sub said
{
	my ($role, $sql, @more) = @_;
	my ($status, $stdout, $stderr) = $router->psql(
		'app', $sql,
		extra_params => [ '-U', $role, '-v', 'VERBOSITY=verbose', @more ],
		on_error_stop => 0);
	return wantarray ? ($stdout, $stderr) : $stdout . $stderr;
}

# The SQLSTATE of the error that a statement ends with, or what it answers.
sub state
{
	my ($stdout, $stderr) = said('postgres', @_);
	return $stderr =~ /ERROR:\s+(\w{5}):/ ? $1 : $stdout;
}

sub timed_out
{
	my ($role, $sql) = @_;
	my $began = time();
	my (undef, $stderr) = said($role, $sql);
	return ($stderr, time() - $began);
}

# A user whose sessions are on a shard.
my %named;

sub user_on
{
	my ($n) = @_;
	$named{$n}++;
	return $router->safe_psql(
		'app', qq(
		SELECT u FROM (SELECT 'user-' || i FROM generate_series(1, 1000) i) AS t (u)
		WHERE session_bucket(u) >> 14 = $n - 1 OFFSET $named{$n} LIMIT 1));
}

# One database has session_manager, another one the router: everything that
# the one has, the other one has under the same name with the same signature.
$router->safe_psql('postgres',
	'CREATE DATABASE core; CREATE DATABASE app; CREATE DATABASE copy');
$router->safe_psql('core',
	'SET client_min_messages = warning; CREATE EXTENSION session_manager CASCADE'
);
$router->safe_psql('app',
	"CREATE ROLE webapp LOGIN; SET client_min_messages = warning; "
	  . ($on_router =~ s/\n.*//sr));
my $functions = q(
	SELECT p.oid::regprocedure || '|' || pg_get_function_arguments(p.oid) || '|' || pg_get_function_result(p.oid)
		|| '|' || p.proisstrict || '|' || obj_description(p.oid, 'pg_proc')
	FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
		JOIN pg_extension e ON e.oid = d.refobjid AND e.extname IN ('session_manager', 'session_manager_router')
	WHERE p.pronamespace = 'public'::regnamespace AND p.prorettype <> 'trigger'::regtype
		AND p.proname !~ '^session_router_'
	ORDER BY p.oid::regprocedure::text COLLATE "C");
my @core = split /\n/, $router->safe_psql('core', $functions);
is_deeply([ split /\n/, $router->safe_psql('app', $functions) ],
	\@core, 'the router has the functions of session_manager');
cmp_ok(scalar @core, '>', 45, 'which are many');
my $columns = q(
	SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attcollation::regcollation
	FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	WHERE c.relnamespace = 'public'::regnamespace AND c.relname IN ('live_session', 'session_events', 'session_stats')
	ORDER BY c.relname, a.attnum);
is( $router->safe_psql('app', $columns),
	$router->safe_psql('core', $columns),
	'and its row types');

# No map yet
is(state("SELECT session_get('x')"), '55000', 'no map, no session');
is(state('SELECT session_active_count()'), '55000', 'nor a count');
foreach my $bad (
	"ARRAY['host=a dbname=b', 'host=c dbname=d', 'host=e dbname=f'], 'router'",
	"'{}', 'router'",
	"NULL, 'router'",
	"ARRAY['host=a dbname=b'], NULL",
	"ARRAY['host=a dbname=b password=secret'], 'router'",
	"ARRAY['host=a dbname=b passWord=secret'], 'router'",
	"ARRAY['host=a dbname=b user=postgres'], 'router'",
	"ARRAY['host=a dbname=b sslpassword=secret'], 'router'",
	"ARRAY['host=a dbname=b oauth_client_secret=secret'], 'router'",
	"ARRAY['host=a'], 'router'",
	"ARRAY['dbname=a'], 'router'",
	"ARRAY['postgresql://a/b'], 'router'",
	"ARRAY['host=''a dbname=b'], 'router'",
	"ARRAY[NULL], 'router'")
{
	is(state("SELECT session_router_create($bad)"), '22023', "refused: $bad");
}
is(state("SELECT session_router_assign('{0}', 'host=a dbname=b')"),
	'42704', 'no map to change');
$router->safe_psql('app', $create . $grant);
is(state($create), '42710', 'one map is enough');
$router->safe_psql('app',
	"ALTER USER MAPPING FOR PUBLIC SERVER session_shards OPTIONS (ADD password 'guessme')"
);
is( $router->safe_psql(
		'app',
		'SELECT shard, parts, version, holds, count(*) OVER (PARTITION BY installation), problem FROM session_router_status()'
	),
	join(
		"\n",
		map {
				"$connection[$_]|{"
			  . join(',', 4 * $_ .. 4 * $_ + 3)
			  . "}|1.0|@{[$_ + 1]}/4|4|"
		} 0 .. 3),
	'four shards of one installation, each with its part');

# As scripts/shard.sh writes it, too
foreach my $share (
	'0-4095', 'none', '1/8, 16384-20479', '0-16383',
	'1/8, 8192-16383', '1/4')
{
	$shard[0]->safe_psql('postgres', $_)
	  foreach "ALTER SYSTEM SET session_manager.shard = '$share'",
	  'SELECT pg_reload_conf()';
	my $status = '';
	ok( wait_until(
			sub {
				$status = $router->safe_psql('app',
					'SELECT holds, problem FROM session_router_status() ORDER BY parts LIMIT 1'
				);
				$status =~ /^\Q$share\E\|/;
			}),
		"a shard has $share");
	my $lacks = $share =~ /4095|none|20479/;
	is( $status,
		"$share|"
		  . (
			$lacks
			? "session_manager.shard = '$share' does not hold all of these parts"
			: ''),
		'the status knows what that is');
}
$shard[0]->safe_psql('postgres', 'ALTER SYSTEM RESET session_manager.shard');
$shard[0]->safe_psql('postgres', 'SELECT pg_reload_conf()');

# Who may do what
$router->safe_psql(
	'app', q(
	ALTER ROLE webapp RENAME TO web; CREATE ROLE chief LOGIN; CREATE ROLE watch LOGIN; CREATE ROLE nobody LOGIN;
	SELECT session_grant('chief', 'admin');
	SELECT session_grant('watch', 'monitor');));
my @held = map {
	my ($role, $db) = @$_;
	$router->safe_psql('core', "SELECT session_grant('$role', '$db')")
} ([ 'web', 'app' ], [ 'chief', 'admin' ], [ 'watch', 'monitor' ]);
my $may = q(
	SELECT p.oid::regprocedure::text COLLATE "C", r FROM pg_proc p, unnest(ARRAY['web', 'chief', 'watch', 'nobody']) r
	WHERE p.pronamespace = 'public'::regnamespace AND p.proname ~ '^session_' AND has_function_privilege(r, p.oid, 'execute')
	ORDER BY 1, 2);
is( $router->safe_psql('app', $may),
	$router->safe_psql('core', $may),
	'the bundles hold the same functions');
is( $router->safe_psql(
		'app', q(
		SELECT count(*) FROM pg_proc p, unnest(ARRAY['web', 'chief', 'watch', 'nobody']) r
		WHERE p.pronamespace = 'session_router'::regnamespace
			AND (has_function_privilege(r, p.oid, 'execute') OR has_schema_privilege(r, 'session_router', 'usage')))
	),
	'0',
	'nobody calls a shard directly');
foreach my $forbidden (
	"SELECT session_router.get(0, 'x', NULL, NULL, true)",
	"SELECT session_invalidate_tenant('acme')",
	"SELECT session_router_invalidate_tenant('acme')",
	"SELECT session_router_assign('{0}', 'host=evil dbname=evil')",
	"SELECT session_router_create(ARRAY['host=evil dbname=evil'], 'web')",
	'SELECT * FROM session_stats',
	"ALTER SERVER session_shards OPTIONS (SET p0 'host=evil')",
	"CREATE USER MAPPING FOR web SERVER session_shards OPTIONS (user 'postgres')",
	"CREATE FUNCTION pg_temp.f() RETURNS text LANGUAGE plproxy AS 'CLUSTER ''session_shards''; RUN ON 0; SELECT 1;'"
  )
{
	my (undef, $errors) = said('web', $forbidden);
	like($errors, qr/ERROR:\s+42501:/, "not for everyone: $forbidden");
}
is( said(
		'web',
		'SELECT count(*) FROM pg_user_mappings WHERE umoptions IS NOT NULL'),
	'0',
	'the password is for superusers');

# Through the life of a session, of a user on each shard, as an ordinary role
foreach my $n (1 .. $shards)
{
	my $user = user_on($n);
	my ($out, $errors) = said(
		'web', qq(
		SELECT session_token AS t, session_id AS i, new_device FROM session_create('$user', '{"n": 1}', ip => '192.0.2.$n',
			user_agent => 'Firefox', tenant_id => 'acme', auth => '{"amr": ["pwd"]}') \\gset
		SELECT session_token_digest(:'t') AS d \\gset
		SELECT user_id, tenant_id, data, version, auth FROM session_get(:'d', '192.0.2.$n');
		SELECT session_get_json(:'d') ->> 'user_id';
		SELECT version, data FROM session_update(:'d', '{"n": null, "m": 2}');
		SELECT status, session_token AS t2 FROM session_refresh(:'d', true) \\gset
		SELECT status, session_token FROM session_refresh(:'d', true);
		SELECT status, session_token AS t3 FROM session_elevate(:'t2', '{"amr": ["otp"]}') \\gset
		SELECT count(*) FROM session_get(:'t2');
		SELECT tenant_id, actor_id FROM session_get_id(:'i', '$user');
		SELECT tenant_id, is_current, ip, user_agent, auth FROM session_list('$user', :'t3');
		SELECT session_update_user('$user', '{"k": 3}');
		SELECT session_active_count(user_id => '$user');
		SELECT session_token AS t3b, proof AS p FROM session_bind_device(:'t3',
			'{"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}',
			session_device_challenge(:'t3'), '192.0.2.$n', 'Firefox') \\gset
		SELECT device_proved_at IS NOT NULL FROM session_get(:'t3b' || '.' || :'p');
		SELECT thumbprint FROM session_device(:'t3b');
		SELECT status, length(proof) FROM session_prove_device(:'t3b', session_device_challenge(:'t3b'));
		SELECT session_device_report(:'t3b', true, 'quota_exceeded');
		SELECT device_thumbprint FROM session_list('$user') WHERE device_bound_at <= clock_timestamp() AND device_proved_at IS NOT NULL;
		SELECT session_token AS t4, session_id AS i4 FROM session_switch_tenant(:'t3b', 'other') \\gset
		SELECT length(session_assertion(:'t4', 'somebody')) > 200, length(session_assertion_id(:'i4', '$user', 'somebody')) > 200;
		SELECT session_invalidate_id(:'i4', '$user');
		SELECT session_end_reason(:'t4');
		SELECT session_token AS a FROM session_create('$user') \\gset
		SELECT session_token AS b FROM session_create('$user') \\gset
		SELECT session_invalidate_all('$user', :'a');
		SELECT session_invalidate(:'a'), session_invalidate(:'b') IS NULL;
		SELECT string_agg(event, ' ') FROM session_history(user_id => '$user', max_rows => 3);
		SELECT count(DISTINCT session_id) FROM session_history(session_id => :'i4'))
	);
	is( $out, qq($user|acme|{"n": 1}|1|{"amr": ["pwd"]}
$user
2|{"m": 2}
already_rotated|
0
acme|
acme|t|192.0.2.$n|Firefox|{"amr": ["otp"]}
1
1
t
cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s
proved|40
t
cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s
t|t
$user
admin
1
$user|t
invalidated invalidated created
1), "sessions live on shard $n");
	is($errors, '', 'without a word');
	is( $shard[ $n - 1 ]->safe_psql(
			'postgres',
			"SELECT count(*) > 0 FROM user_sessions WHERE user_id = '$user'"),
		't',
		'there and');
	is( join(
			',',
			map {
				$_->safe_psql('postgres',
					"SELECT count(*) FROM user_sessions WHERE user_id = '$user'"
				)
			} grep { $_ != $shard[ $n - 1 ] } @shard),
		'0,0,0',
		'nowhere else');
}

# What somebody else's token spares, and marks, is nothing; but it is no error.
my ($ann, $bob) = (user_on(1), user_on(3));
like(
	said(
		'web', qq(
		SELECT session_token AS t FROM session_create('$ann') \\gset
		SELECT session_token AS u FROM session_create('$bob') \\gset
		SELECT is_current FROM session_list('$ann', :'u');
		SELECT session_invalidate_all('$ann', :'u'), session_invalidate_all('$bob', 'x'), session_invalidate_all('$bob');)
	),
	qr/^f\n1\|1\|0$/,
	"a token of somebody else's shard");
is( said(
		'web',
		q(SELECT count(*) FROM session_get('x'); SELECT count(*) FROM session_get(NULL); SELECT status FROM session_refresh('sm1_');
		SELECT session_invalidate('') IS NULL)),
	"0\n0\nended\nt",
	'what is no token has no session');

# An error is the shard's, word for word.
my $token = $router->safe_psql('app',
	"SELECT session_token FROM session_create('$ann', '{}', tenant_id => 'acme')"
);
my $digest = digest_form($token);
my $conflict = "SELECT session_update('$digest', '{}', 7)";
my ($there) = map { s/CONTEXT.*//sr }
  failure($shard[0], "\\set VERBOSITY verbose\n$conflict");
my (undef, $here) = said('web', $conflict);
$here =~ s/^.*?ERROR:\s+//s;
is( join("\n", ($here =~ /^(SM001.*|DETAIL.*|HINT.*)$/mg)),
	join("\n", ($there =~ /^(SM001.*|DETAIL.*|HINT.*)$/mg)),
	'an error is that of the shard');
like($here, qr/^SM001: .*\nDETAIL: .*\nHINT: /, 'with all its parts');
unlike($here, qr/REMOTE|Remote|shard1/, 'and nothing of how it came');

foreach (
	[ "SELECT session_create(NULL)", '22004' ],
	[ "SELECT session_create('')", '22023' ],
	[ "SELECT session_create('x', '[]')", '22023' ],
	[ "SELECT session_list('x', max_rows => 0)", '22023' ],
	[ "SELECT session_history(max_rows => 0)", '22023' ],
	[ "SELECT session_invalidate_tenant(NULL)", '22004' ],
	[ "SELECT session_invalidate_everything('')", '22023' ],
	[ "SELECT session_key_activate(9)", '42704' ],
	[ "SELECT session_key_retire(1)", '55000' ],
	[ "SELECT session_key_add(1)", '42710' ],
	[ "SELECT session_key_add(2)", 'SM003' ],
	[ "SELECT session_key_add(NULL)", '' ],
	[ "SELECT session_token_digest('x')", '22023' ],
	[ "SELECT session_grant('web', 'reader')", '0A000' ],
	[ "SELECT session_grant('web', 'x')", '22023' ],
	[ "SELECT session_create('x', actor_token => '$digest')", '0A000' ])
{
	my ($sql, $expected) = @$_;
	is(state($sql), $expected, "$sql: $expected");
}

# What a shard has done is done, whatever becomes of the caller's transaction.
is( said(
		'web', qq(
		BEGIN READ ONLY;
		SELECT version FROM session_update('$digest', '{"k": 1}');
		ROLLBACK;
		SELECT version, data FROM session_get('$digest');)),
	qq(2\n2|{"k": 1}),
	'a rollback does not undo it');

# Which functions go where: a new one has to be added to one of these lists.
my $id = $router->safe_psql('app',
	"SELECT session_id FROM session_get('$digest', touch => false)");
my %routed = (
	session_create => "'$ann'",
	session_update_user => "'$ann', '{}'",
	session_invalidate_all => "'$ann'",
	session_list => "'$ann'",
	session_export => "'$ann'",
	session_erase => "'$ann'",
	session_get => "'$digest'",
	session_get_json => "'$digest'",
	session_update => "'$digest', '{}'",
	session_refresh => "'$digest'",
	session_elevate => "'$digest', '{}'",
	session_switch_tenant => "'$digest', 'x'",
	session_invalidate => "'$digest'",
	session_device_challenge => "'$digest'",
	session_bind_device =>
	  qq('$digest', '{"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}', 'x'),
	session_prove_device => "'$digest', 'x'",
	session_device => "'$digest'",
	session_device_report => "'$digest', true, 'x'",
	session_assertion => "'$digest', 'x'",
	session_status => "'$digest'",
	session_end_reason => "'$digest'",
	session_get_id => "'$id', '$ann'",
	session_invalidate_id => "'$id'",
	session_assertion_id => "'$id', '$ann', 'x'",
	session_history => "user_id => '$ann'",
	session_active_count => "user_id => '$ann'");
my %refused = (
	session_bind => "'$digest'",
	session_bind_id => "'$id', '$ann'",
	(   map { $_ => '' }
		  qw(session_user_id session_tenant_id session_actor_id session_id session_audience session_hand_over session_key_generate)
	),
	session_trust => "'{}'",
	session_distrust => "'$id'");
my @everywhere =
  qw(session_invalidate_tenant session_invalidate_everything session_active_estimate session_cleanup session_key_add
  session_key_activate session_key_retire session_key_revoke session_keys session_reencrypt session_assertion_keys session_info session_audit
  session_counters session_stats_reset session_critical_events session_activity session_top);
my @local =
  qw(session_token_digest session_bucket session_token_bucket session_event_severity session_cache_settings session_grant session_revoke);
my %all = map { /^(\w+)/; $1 => 1 } @core;
is_deeply(
	[ sort(keys %routed, keys %refused, @everywhere, @local) ],
	[ sort keys %all ],
	'every function is routed, asked of all, local or refused');

foreach my $name (sort keys %refused)
{
	my (undef, $errors) = said('postgres', "SELECT $name($refused{$name})");
	like($errors, qr/ERROR:\s+0A000: .*\nHINT:  \S/,
		"$name says where to go");
}

# A stale map sends what is on shard 1 to shard 4.  A connection that is open
# all the time sees the map change.
my $open = connection($router, 'app');
like(query($open, "SELECT user_id FROM session_get('$digest')"),
	qr/^$ann$/m, 'a connection is open');
$router->safe_psql('app',
	"SELECT session_router_assign('{0, 1, 2, 3}', '$connection[3]')");
foreach my $name (sort keys %routed)
{
	is(state("SELECT $name($routed{$name})"),
		'SM005', "$name on the wrong shard");
}
is( $router->safe_psql(
		'app',
		"SELECT problem FROM session_router_status() WHERE problem IS NOT NULL"
	),
	"session_manager.shard = '4/4' does not hold all of these parts",
	'the status knows');
my (undef, $wrong) =
  query($open, "SELECT user_id FROM session_get('$digest')");
like($wrong, qr/SM005/, 'the open connection goes there too');
$router->safe_psql('app',
	"SELECT session_router_assign('{0, 1, 2, 3}', '$connection[0]')");
like(query($open, "SELECT user_id FROM session_get('$digest')"),
	qr/^$ann$/m,
	'nothing has been changed there, and the open connection is back');
$open->quit;
foreach my $bad (
	"'{16}', 'host=a dbname=b'",
	"'{-1}', 'host=a dbname=b'",
	"'{}', 'host=a dbname=b'",
	"'{NULL}', 'host=a dbname=b'",
	"NULL, 'host=a dbname=b'",
	"'{1}', 'host=a'",
	"'{1}', 'host=a dbname=b user = x'")
{
	is(state("SELECT session_router_assign($bad)"), '22023', "refused: $bad");
}

# Everything of a fleet in one answer
sub log_in_everywhere
{
	return map {
		[
			$_,
			$router->safe_psql(
				'app',
				"SELECT session_token FROM session_create('$_', tenant_id => 'acme')"
			)
		]
	  }
	  map { user_on($_) } 1 .. $shards;
}
$router->safe_psql('app', 'SELECT session_invalidate_everything()');
$router->safe_psql('app', 'SELECT session_stats_reset()');
log_in_everywhere();
is( $router->safe_psql(
		'app',
		"SELECT session_active_count(), session_active_count('acme'), session_active_count('x'), session_active_estimate()"
	),
	'4|4|0|4',
	'sums');
is( $router->safe_psql(
		'app',
		"SELECT database_name, sessions_created, stats_reset <= now(), last_pass_age >= '0' OR last_pass_age IS NULL FROM session_stats"
	),
	'app|4|t|t',
	'counters');
is( $router->safe_psql(
		'app',
		"SELECT count(*), count(DISTINCT user_id), bool_and(event = 'created') FROM session_history(max_rows => 4)"
	),
	'4|4|t',
	'the latest events of all shards');
is( $router->safe_psql(
		'app', q(
		SELECT sum(a.events) = sum(h.events), count(*) FILTER (WHERE a.events IS DISTINCT FROM h.events), min(until) > now() - interval '1 hour'
		FROM session_activity(now() - interval '1 day') a
		FULL JOIN (SELECT date_trunc('hour', at, 'UTC'), event, detail ->> 'reason', count(*)
			FROM session_history(max_rows => 10000) GROUP BY 1, 2, 3) h (hour, event, reason, events)
			ON (a.hour, a.event) = (h.hour, h.event) AND a.reason IS NOT DISTINCT FROM h.reason
		WHERE coalesce(a.event, h.event) IN ('created', 'invalidated');
		SELECT sum(events) >= 4 FROM session_activity(tenant_id => 'acme') WHERE event = 'created';
		SELECT count(*), count(DISTINCT user_id), min(sessions) >= 1 FROM session_top(4);
		SELECT count(*) FROM session_top(tenant_id => 'x');
		SELECT count(*) = (SELECT count(*) FROM session_history(max_rows => 10000) WHERE session_event_severity(event) = 'critical')
		FROM session_critical_events(1000))
	),
	"t|0|t\nt\n4|4|t\n0\nt",
	'activity, critical events and users with many sessions');
is( $router->safe_psql(
		'app',
		"SELECT string_agg(value, '+' ORDER BY key DESC) ~ '^1.0\\+.*shard1: 1/4; .*shard4: 4/4\\+active\\+t\$'
		FROM (SELECT key, value FROM session_info() WHERE key IN ('version', 'shard')
			UNION ALL SELECT 'b', state FROM session_keys() UNION ALL SELECT 'a', left(available::text, 1) FROM session_keys()) i"
	),
	't',
	'info, and keys');
is( $router->safe_psql('app', 'SELECT session_assertion_keys()'),
	$shard[2]->safe_psql('postgres', 'SELECT session_assertion_keys()'),
	'keys of assertions are those of each shard');
is( $router->safe_psql(
		'app',
		'SELECT sessions_deleted >= 0, session_reencrypt() FROM session_cleanup()'
	),
	't|0',
	'maintenance');
is( said(
		'watch',
		'SELECT count(*) > 9, session_active_count() FROM session_info()'),
	't|4',
	'for who monitors');

is( said(
		'web', q(
		SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Kolkata';
		SELECT count(*) FROM session_history(since => now() - interval '1 hour', max_rows => 4);
		SELECT count(*) FROM session_history(since => now() + interval '1 hour');
		SET IntervalStyle = 'sql_standard';
		SELECT expires_at - created_at = '2 days 3 hours' FROM session_create('styled', ttl => '2 days 3 hours',
			idle_timeout => '2 hours');
		SELECT idle_timeout FROM session_list('styled');
		SELECT session_invalidate_all('styled');)
	),
	"4\n0\nt\n2:00:00\n1",
	'times mean the same whatever the caller writes them like');

# A second key: what one shard lacks is said, and the second call ends it.
my $second = random_key();
foreach my $n (0 .. 2)
{
	write_file(key_file($shard[$n]), "1:$key\n2:$second\n");
}
like(
	said('chief', 'SELECT session_key_add(2)'),
	qr/ERROR:\s+SM003: 1 of 4 session shards have not done this.*\nDETAIL:  .*dbname=shard4/,
	'a key that one shard does not have');
is( $router->safe_psql(
		'app', "SELECT state, available FROM session_keys() WHERE key_id = 2"
	),
	'added/none|f',
	'as the list of keys shows');
is(state('SELECT session_assertion_keys()'),
	'55000', 'not two sets of keys for assertions');
write_file(key_file($shard[3]), "1:$key\n2:$second\n");
is(said('chief', 'SELECT session_key_add(2)'), '', 'is added later');
is(said('chief', 'SELECT session_key_activate(2)'), '', 'and activated');
is( $router->safe_psql(
		'app', 'SELECT key_id, state, available FROM session_keys()'),
	"1|inactive|t\n2|active|t",
	'on all shards');

# One shard is stopped.  The others do all they have to.
my @sessions = log_in_everywhere();
$shard[3]->stop('fast');
my $unreached =
  qr/WARNING:  08\w+: 1 of 4 session shards have not taken part\n.*DETAIL:  .*dbname=shard4 \(parts 12, 13, 14, 15\)/s;
foreach my $n (0 .. 2)
{
	is(said('web', "SELECT user_id FROM session_get('$sessions[$n][1]')"),
		$sessions[$n][0], "shard @{[$n + 1]} serves");
}
my ($said, $took) =
  timed_out('web', "SELECT user_id FROM session_get('$sessions[3][1]')");
like($said, qr/ERROR:\s+08\w+:/, 'the stopped one does not');
cmp_ok($took, '<', 4, 'which is soon said');
($said) = timed_out('chief', 'SELECT session_active_count()');
like($said, $unreached, 'a count is said to be partial');
($said) = timed_out('chief', 'SELECT count(*) FROM session_history()');
like($said, $unreached, 'a history too');
($said) = timed_out('watch', 'SELECT count(*) FROM session_info()');
like($said, $unreached, 'and the rest');
($said) = timed_out('chief', 'SELECT session_key_activate(2)');
like(
	$said,
	qr/ERROR:\s+08\w+: 1 of 4 session shards have not done this/,
	'a change of keys that is not whole is an error');
is( $router->safe_psql(
		'app',
		"SELECT array_agg(problem IS NULL ORDER BY parts) FROM session_router_status()"
	),
	'{t,t,t,f}',
	'the status says which');
my ($count, $warned) =
  said('chief', "SELECT session_invalidate_tenant('acme')");
is($count, '6', 'a tenant is signed out where it can be');
like($warned, $unreached, 'the call names who has not taken part');
is( $router->safe_psql(
		'app', q(
		SELECT shard ~ 'shard4', sessions, left(state, 2), message <> '' FROM session_router_invalidate_tenant('acme') ORDER BY parts)
	),
	"f|0||\nf|0||\nf|0||\nt||08|t",
	'as a row for each shard, too');
is( $router->safe_psql(
		'app',
		"SELECT count(*), count(sessions), sum(sessions) FROM session_router_invalidate_everything()"
	),
	'4|3|0',
	'and so for all tenants');
is(join(',', map { live($shard[$_], $sessions[$_][1]) } 0 .. 2),
	'0,0,0', 'their sessions have ended');
$shard[3]->start;
ok( wait_until(
		sub {
			$router->safe_psql('app',
				"SELECT count(sessions) FROM session_router_invalidate_tenant('acme')"
			) eq '4';
		}),
	'a later call reaches it');
is(live($shard[3], $sessions[3][1]), '0', 'and ends the rest');

# One shard hangs.  Who has no session there does not notice.
@sessions = log_in_everywhere();
my $postmaster = slurp_file($shard[3]->data_dir . '/postmaster.pid');
($postmaster) = $postmaster =~ /^(\d+)/;
my @backends = split /\n/,
  $shard[3]->safe_psql('postgres',
	"SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()");
@frozen = ($postmaster, @backends);
kill 'STOP', @frozen;
foreach my $try (1, 2)
{
	($said, $took) =
	  timed_out('web', "SELECT user_id FROM session_get('$sessions[3][1]')");
	like($said, qr/ERROR:\s+08\w+:/, "a shard that hangs is given up ($try)");
	cmp_ok($took, '<', 4, 'within 4 seconds');
	foreach my $n (0 .. 2)
	{
		($said, $took) =
		  timed_out('web',
			"SELECT 1 / count(*) FROM session_get('$sessions[$n][1]')");
		is($said, '', "shard @{[$n + 1]} serves meanwhile");
		cmp_ok($took, '<', 2, 'at its own pace');
	}
}
($count, $warned) = said('chief', "SELECT session_invalidate_tenant('acme')");
is($count, '3', 'a tenant is signed out where it can be');
like($warned, $unreached, 'and the one that hangs is named');
is(join(',', map { live($shard[$_], $sessions[$_][1]) } 0 .. 2),
	'0,0,0', 'their sessions have ended');
kill 'CONT', @frozen;
@frozen = ();
ok( wait_until(
		sub {
			$router->safe_psql('app',
				"SELECT count(sessions) FROM session_router_invalidate_tenant('acme')"
			) eq '4';
		}),
	'it is reached when it goes on');
is(live($shard[3], $sessions[3][1]), '0', 'and has ended the rest');

# No shard at all
$_->stop('fast') foreach @shard;
like(state("SELECT session_invalidate_tenant('acme')"),
	qr/^08/, 'where no shard answers, nothing has been done');
$_->start foreach @shard;
wait_until(sub { state('SELECT session_active_count()') eq '0' });

# Who can create objects, and puts them first, runs nothing as the owner.
$router->safe_psql(
	'app', q(
	CREATE SCHEMA evil AUTHORIZATION web;
	SET ROLE web;
	CREATE FUNCTION evil.trap(text) RETURNS boolean LANGUAGE plpgsql AS $$
		BEGIN RAISE EXCEPTION 'trapped as %', current_user; END $$;
	CREATE DOMAIN evil.text AS pg_catalog.text CHECK (evil.trap(VALUE));
	CREATE DOMAIN evil.int4 AS pg_catalog.int4 CHECK (evil.trap(VALUE::pg_catalog.text));
	CREATE FUNCTION evil.session_token_bucket(pg_catalog.text) RETURNS integer LANGUAGE sql AS 'SELECT evil.trap($1); SELECT 1';
	CREATE FUNCTION evil.session_bucket(pg_catalog.text) RETURNS integer LANGUAGE sql AS 'SELECT evil.trap($1); SELECT 1';
	CREATE FUNCTION evil.shift(integer, integer) RETURNS integer LANGUAGE sql AS 'SELECT evil.trap($1::pg_catalog.text); SELECT 1';
	CREATE OPERATOR evil.>> (LEFTARG = integer, RIGHTARG = integer, FUNCTION = evil.shift);
	CREATE FUNCTION evil.format(pg_catalog.text, VARIADIC pg_catalog.text[]) RETURNS pg_catalog.text LANGUAGE sql
		AS 'SELECT evil.trap($1); SELECT $1';));
my $evil = 'SET search_path = evil, public, pg_catalog; ';
($said) = timed_out(
	'web', qq($evil
	SELECT user_id FROM session_create('$ann'), session_get(session_token), session_list('$ann');
	SELECT session_update('x', '{}'), session_refresh('x'), session_invalidate('x'), session_history(), session_active_count(),
		session_cleanup(), session_get_json('x');
	SELECT session_get_id('$id', '$ann');));
is($said, '', 'objects before the own ones are not used');
($said) = timed_out('web', "$evil SELECT session_create('')");
like($said, qr/22023/, 'nor for errors');

# pg_dump takes the map along; the extension comes and goes without it.
my $map = 'SELECT shard, parts FROM session_router_map()';
my $mapped = $router->safe_psql('app', $map);
my $dump = $router->basedir . '/app.dump';
$router->command_ok(
	[ 'pg_dump', '-Fc', '-f', $dump, $router->connstr('app') ],
	'the router is dumped');
$router->command_ok(
	[
		'pg_restore', '--exit-on-error', '-d', $router->connstr('copy'),
		$dump
	],
	'and restored');
is($router->safe_psql('copy', $map), $mapped, 'with its map');
my $restored = $router->safe_psql('copy',
	"SELECT session_token FROM session_create('$bob')");
is( $router->safe_psql('app', "SELECT user_id FROM session_get('$restored')"),
	$bob,
	'a copy reaches the same shards');
is( $router->safe_psql('copy', $may),
	$router->safe_psql('app', $may),
	'and has the privileges');
$router->safe_psql('copy', 'DROP EXTENSION session_manager_router');
is( $router->safe_psql(
		'copy',
		"SELECT (SELECT count(*) FROM pg_proc WHERE proname ~ '^session_(get|router_)'), to_regnamespace('session_router') IS NULL,
		(SELECT count(*) FROM pg_foreign_server)"
	),
	'0|t|1',
	'DROP EXTENSION leaves the map alone');
$router->safe_psql('copy', 'CREATE EXTENSION session_manager_router');
is( $router->safe_psql(
		'copy', "SELECT user_id FROM session_get('$restored')"),
	$bob,
	'and CREATE EXTENSION finds it');
is(state("CREATE EXTENSION session_manager CASCADE"),
	'42P07', 'one schema has room for one of the two');

# What an argument must not be is refused as a shard refuses it: each argument
# of each function in turn, on the shard, which takes it back, and through the
# router.  Those that end sessions and keys of everybody come last.
my %bad = (
	boolean => ['NULL'],
	bytea => [ 'NULL', q('\x00') ],
	inet => ['NULL'],
	integer => [ 'NULL', 0, -1, 2147483647 ],
	interval => [ 'NULL', q('-1 s'), q('0'), q('5000 years'), ],
	jsonb => [ 'NULL', q('1'), q('[]') ],
	text => [ 'NULL', q(''), q('x'), q(repeat('x', 100000)) ],
	'timestamp with time zone' => [ 'NULL', q('infinity'), q('-infinity') ],
	uuid => ['NULL']);
my %good = (
	auth => q('{}'),
	challenge => q('x'),
	data => q('{}'),
	key => $routed{session_bind_device} =~ s/^'.*?', (.*), 'x'/$1/r,
	key_id => 1,
	patch => q('{}'),
	role => q('web'),
	skipped => 'true');
my %in_the_end = map { $_ => 1 }
  qw(session_invalidate_tenant session_invalidate_everything session_key_add
  session_key_activate session_key_retire session_key_revoke session_reencrypt);
my @probes;

foreach my $name (
	sort { ($in_the_end{$a} // 0) <=> ($in_the_end{$b} // 0) || $a cmp $b }
	keys %routed,
	@everywhere)
{
	my ($names, $types, $required) = split /\|/, $shard[0]->safe_psql(
		'postgres', qq(
		SELECT array_to_string(proargnames[1:pronargs], ','),
			(SELECT string_agg(t::regtype::text, ',' ORDER BY i) FROM unnest(proargtypes) WITH ORDINALITY a (t, i)),
			pronargs - pronargdefaults
		FROM pg_proc WHERE proname = '$name'));
	my @names = split /,/, $names;
	my @types = split /,/, $types;
	# a user of its own, whose session the call may end
	my $its_user = user_on(1);
	my ($its_id, $its_digest) = split /\|/, $router->safe_psql(
		'app', qq(
		SELECT session_id, session_token_digest(session_token) FROM session_create('$its_user'))
	);
	my %its = (
		%good,
		user_id => "'$its_user'",
		session_id => "'$its_id'",
		token => "'$its_digest'",
		current_token => "'$its_digest'");
	my $call = sub {
		my (%given) = @_;
		return "$name(" . join(
			', ',
			map {
				"$names[$_] => "
				  . ($given{ $names[$_] } // $its{ $names[$_] } // "'x'")
			  }
			  grep { $_ < $required || exists $given{ $names[$_] } }
			  0 .. $#names) . ')';
	};
	push @probes, $call->() unless $in_the_end{$name};
	foreach my $i (0 .. $#names)
	{
		my $values = $bad{ $types[$i] } or die "no bad $types[$i]";
		push @probes, map { $call->($names[$i] => $_) } @$values;
	}
}

# SQLSTATEs of the probes, 00000 without an error.
sub refusals
{
	my ($node, $database) = @_;
	my $n = 0;
	my ($status, $stdout) = $node->psql(
		$database,
		join(
			"\n",
			'SET client_min_messages = error;',
			map {
				(   "BEGIN; SELECT $_ \\gset _",
					'\echo probe ' . $n++ . ' :SQLSTATE',
					'ROLLBACK;')
			} @probes),
		extra_params => [ '-U', 'postgres' ],
		on_error_stop => 0);
	my %found = $stdout =~ /^probe (\d+) (\w{5})$/mg;
	return map { $found{$_} // die "no answer to $probes[$_]" } 0 .. $#probes;
}

my @by_shard = refusals($shard[0], 'postgres');
my @by_router = refusals($router, 'app');
cmp_ok(scalar(grep { $_ ne '00000' } @by_shard),
	'>', 100, 'many of ' . @probes . ' arguments are refused');
is( join(' ',
		map  { $probes[$_] }
		grep { $by_shard[$_] =~ /^(22P02|42883)$/ } 0 .. $#probes),
	'',
	'each by a function');
# (a user may be another shard's, and who acts as the user always might be)
my %different = map { $probes[$_] => "$by_shard[$_] $by_router[$_]" }
  grep {
		 $by_router[$_] ne $by_shard[$_]
	  && $by_shard[$_] ne 'SM005'
	  && $probes[$_] !~ /^session_create\(.*actor_token/
  } 0 .. $#probes;
is_deeply(\%different, {},
	'the router refuses what a shard refuses, and nothing else')
  or diag(explain(\%different));

# No log has a token: the clients of this test sent some.
foreach my $node ($router, @shard)
{
	unlike(slurp_file($node->logfile),
		qr/sm1_[\w-]{44,}/, 'no token in the log of ' . $node->name);
}
my ($secret) = map { substr($_, -24) } $token;
unlike(slurp_file($_->logfile), qr/\Q$secret\E/, 'nor the secret of one')
  foreach $router, @shard;

$pooler->signal('INT');
$pooler->finish;
undef $pooler;
done_testing();
