# From each version of the extension to this one, and from this one to a next
# that is made up here: a column that the library knows, one that it does not,
# a function, and the upgrade script.  The library and the SQL are updated in
# either order, under traffic; no session is lost, none revives, no error is
# raised but the documented one, and what there is afterwards does not differ
# from a fresh installation.
#
# RELEASES names a directory with the sources of each release.  Where there are
# none, the released versions are seen by their scripts in sql/ alone, under the
# new library.

use strict;
use warnings FATAL => 'all';
use Cwd qw(abs_path getcwd);
use File::Basename;
use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use ShardTest;
use Test::More;

my $tree = getcwd();
my $work = PostgreSQL::Test::Utils::tempdir();
my $next_version = '1000.0';

# Server programs of our own, whose extension is replaced while they run
chomp(my $installed = `$ENV{PG_CONFIG} --bindir`);
chomp(my $staged = `pg_config --bindir`);
my ($stage) = abs_path($staged) =~ /^(.*)\Q$installed\E$/
  or die "$staged is not staged";
my $place = "$work/place";
system_or_bail('cp', '-a', $stage, $place);
$ENV{PATH} = "$place$installed:$ENV{PATH}";
chomp(my $share = `pg_config --sharedir`);
like($share, qr/^\Q$place\E/, 'the servers have files of their own');

# As dpkg does it: there is no moment at which a file is not there, and none is
# written to.
sub install
{
	my ($from) = @_;
	my $package = "$work/package";
	my %new;

	system_or_bail('rm', '-rf', $package);
	system_or_bail('make', '-s', '-C', $from, 'install',
		"DESTDIR=$package", "PG_CONFIG=$ENV{PG_CONFIG}");
	chomp(my @files =
		  `cd $package && find . -name 'session_manager*' -type f`);
	for my $file (@files)
	{
		rename "$package/$file", "$place/$file" or die "$file: $!";
		$new{ basename($file) } = 1;
	}
	unlink grep { !$new{ basename($_) } }
	  glob "$share/extension/session_manager*";
	ok($new{'session_manager.so'}, 'installed ' . version_of($from));
	return;
}

sub version_of
{
	my ($from) = @_;
	return (slurp_file("$from/session_manager.control") =~
		  /^default_version = '(.*)'/m)[0];
}

# The tree of the next version
sub edit
{
	my ($file, $what, $by) = @_;
	my $text = slurp_file($file);
	(my $edited = $text) =~ s/$what/$by/ or die "$file has no $what";
	write_file($file, $edited, 0644);
	return;
}

sub make_next
{
	my $next = "$work/next";
	my $version = version_of($tree);
	my $guard = q(
CREATE FUNCTION session_require_library(text) RETURNS void AS 'MODULE_PATHNAME', 'sm_require_library' LANGUAGE C;
SELECT session_require_library('VERSION');
DROP FUNCTION session_require_library(text);
) =~ s/VERSION/$next_version/r;
	my $functions = q(
CREATE FUNCTION session_next() RETURNS text AS 'MODULE_PATHNAME', 'sm_session_next' LANGUAGE C;
COMMENT ON FUNCTION session_next() IS 'what the next version has in addition';
REVOKE ALL ON FUNCTION session_next() FROM PUBLIC;
);
	my $columns = q(
ALTER TABLE user_sessions ADD COLUMN channel text COLLATE "C" NOT NULL DEFAULT 'web';
COMMENT ON COLUMN user_sessions.channel IS 'unknown to the library';
ALTER TABLE session_issuers ADD COLUMN label text NOT NULL DEFAULT '';
COMMENT ON COLUMN session_issuers.label IS 'known to the library';
);

	mkdir $next;
	system_or_bail('cp', '-R',
		(map { "$tree/$_" } qw(Makefile src sql scripts)), $next);
	system_or_bail('find', "$next/src", '-name', '*.o', '-delete');
	for my $extension (qw(session_manager session_manager_router))
	{
		my $script = "sql/$extension--$version.sql";
		my $base = "sql/$extension--$next_version.sql";
		my $upgrade = "sql/$extension--$version--$next_version.sql";
		my $router = $extension =~ /router/;
		my $tail = $functions . ($router ? '' : $columns);

		write_file(
			"$next/$extension.control",
			slurp_file("$tree/$extension.control") =~
			  s/^default_version = '.*'/default_version = '$next_version'/mr,
			0644);
		my $text = slurp_file("$tree/$script");
		# what revokes privileges comes last
		$text =~ s/^(?=-- By default PUBLIC may execute)/$tail/m
		  or die "$script has no end";
		write_file("$next/$base", $text, 0644);
		write_file("$next/$upgrade", $guard . $tail, 0644);
		edit("$next/Makefile", quotemeta("\t$script"),
			"\t$script $base $upgrade");
	}
	edit("$next/src/schema.h", 'Anum_issuers_mac,',
		'Anum_issuers_mac, Anum_issuers_label,');
	edit(
		"$next/src/schema.h",
		'Natts_session_issuers = Anum_issuers_mac',
		'Natts_session_issuers = Anum_issuers_label');
	edit(
		"$next/src/schema.c",
		'(\[Anum_issuers_mac - 1\])',
		'[Anum_issuers_label - 1] = {"label", TEXTOID, InvalidOid},
	[Anum_issuers_mac - 1]');
	append_to_file(
		"$next/src/sql/info.c", '
PG_FUNCTION_INFO_V1(sm_session_next);
Datum
sm_session_next(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(SM_VERSION));
}
');
	system_or_bail('make', '-s', '-j2', '-C', $next, 'COPT=-O0',
		"PG_CONFIG=$ENV{PG_CONFIG}");
	return $next;
}

# What differs from a fresh installation in a database beside
sub differences
{
	my ($node, $extension, $dbname) = @_;
	my @catalogue = map {
		[
			split /\n/,
			$node->safe_psql(
				$_,
				slurp_file("$tree/test/t/lib/catalogue.sql"),
				extra_params => [ '-v', "extension=$extension" ])
		]
	} $dbname, 'fresh';
	my %lines = map { $_ => 1 } @{ $catalogue[0] };
	my %fresh = map { $_ => 1 } @{ $catalogue[1] };
	cmp_ok(
		scalar(@{ $catalogue[1] }),
		'>',
		$extension =~ /router/ ? 100 : 300,
		"$extension: the catalogue is seen");
	return (map { "- $_" } grep { !$lines{$_} } @{ $catalogue[1] }),
	  map { "+ $_" } grep { !$fresh{$_} } @{ $catalogue[0] };
}

sub as_fresh
{
	my ($node, $dbname, $name) = @_;
	$node->safe_psql(
		'postgres', q(
		DROP DATABASE IF EXISTS fresh;
		CREATE DATABASE fresh));
	install_extension($node, 'fresh');
	$node->safe_psql('fresh', $_) foreach grants();
	is(join("\n", differences($node, 'session_manager', $dbname)),
		'', "$name: no object differs from a fresh installation");
	return;
}

sub grants
{
	return
	  map { "SELECT session_grant('clerk', '$_')" }
	  qw(app admin monitor reader);
}

# Sessions of each kind: what each must answer, by its token
my $device_key =
  '{"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}';

sub fill
{
	my ($node) = @_;
	my @tokens = split /\n/, $node->safe_psql(
		'postgres', qq(
		SELECT session_token FROM session_create('plain');
		SELECT session_token FROM session_create('data', '{"cart": ["a", "b"], "name": "Ünal"}', auth => '{"amr": ["pwd"]}');
		SELECT session_token AS tenant FROM session_create('tenant', '{"n": 1}', tenant_id => 'acme', ip => '2001:db8::1', user_agent => 'Firefox', idle_timeout => '3h') \\gset
		\\echo :tenant
		SELECT session_token FROM session_create('other', actor_token => :'tenant');
		SELECT session_token AS old FROM session_create('rotated') \\gset
		SELECT session_token FROM session_refresh(:'old', true);
		SELECT b.session_token || '.' || b.proof FROM session_create('bound', '{"d": 1}') s,
			session_bind_device(s.session_token, '$device_key', session_device_challenge(s.session_token)) b;
		SELECT session_token AS gone FROM session_create('gone') \\gset
		SELECT session_invalidate(:'gone') \\g /dev/null
		\\echo :gone
		SELECT session_trust(session_assertion_keys()) \\g /dev/null
		SELECT session_cleanup() \\g /dev/null));
	is(scalar(@tokens), 7, 'sessions of each kind');
	return @tokens;
}

# Connected once, as an application is
sub answers
{
	my ($connection, @tokens) = @_;
	return join "\n", map {
		scalar query($connection,
			"SELECT session_id, user_id, tenant_id, data, version, auth, created_at, absolute_expires_at FROM session_get('$_', touch => false)"
		)
	} @tokens;
}

sub kept
{
	my ($node) = @_;
	return $node->safe_psql(
		'postgres', q(
		SELECT count(*), md5(string_agg(e::text, E'\n' ORDER BY event_id)) FROM session_events e
			WHERE user_id IN ('plain', 'data', 'tenant', 'other', 'rotated', 'bound', 'gone');
		SELECT count(*), md5(string_agg(k::text, E'\n' ORDER BY key_id)) FROM (SELECT key_id, state, check_value FROM session_keys) k;
		SELECT count(*), md5(string_agg(s::text, E'\n' ORDER BY session_id))
			FROM (SELECT session_id, verifier, sealed_data, device_binding_id, state_mac, ip, user_agent FROM user_sessions
				WHERE user_id IN ('plain', 'data', 'tenant', 'other', 'rotated', 'bound', 'gone')) s)
	);
}

# A server with the version of a tree, sessions in it, and traffic
sub start_server
{
	my ($name, $from, $preload) = @_;
	install($from);
	my $node = new_node(
		$name,
		preload => $preload ? 'session_manager' : '',
		conf => q(
session_manager.device_proof_lifetime = 1h
session_manager.sweep_interval = 2s
));
	$node->safe_psql('postgres', 'CREATE ROLE clerk');
	$node->safe_psql('postgres', $_) foreach grants();
	return $node;
}

sub traffic_on
{
	my ($node) = @_;
	my $map = $node->basedir . '/map';
	write_map($map, [ 0, 65535, $node ]);
	return ($map, start_traffic($map, 3));
}

# What clients have seen that is not right; the errors that are allowed are given.
sub traffic_ends
{
	my ($name, $allowed, $map, @clients) = @_;
	my %count = end_traffic($map, @clients);
	is( "$count{lost} $count{revived}",
		'0 0',
		"$name: no session is lost, and none revives");
	my @errors = map { $_->{output} =~ /^(error: .*)$/mg } @clients;
	my @others = grep { !defined $allowed || !/$allowed/ } @errors;
	is(join("\n", @others),
		'', "$name: no error but the documented one (@{[ scalar @errors ]})");
	cmp_ok($count{live} + $count{dead}, '>', 50, "$name: there was traffic");
	return;
}

sub info
{
	my ($node, $key) = @_;
	return $node->safe_psql('postgres',
		"SELECT value FROM session_info() WHERE key = '$key'");
}

my $newer =
  qr/the library of session_manager is newer than the extension in this database/;

# Preloaded: the running server keeps the old library until it is restarted.
sub update_preloaded
{
	my ($old, $new) = @_;
	my ($from, $to) = map { version_of($_) } $old, $new;
	my $name = "$from to $to, preloaded";
	my $node = start_server("preloaded_$from", $old, 1);
	my @tokens = fill($node);
	my $open = connection($node);
	my ($before, $kept) = (answers($open, @tokens), kept($node));
	my @traffic = traffic_on($node);

	# SQL first: refused, whatever the new version changes
	install($new);
	like(
		failure($node, 'ALTER EXTENSION session_manager UPDATE'),
		qr/^55000: +the extension cannot be updated to version \Q$to\E while version \Q$from\E of the library of session_manager is loaded.*^HINT: .*restart/ms,
		"$name: the SQL cannot be updated before the library");
	is(info($node, 'version'), $from, "$name: and nothing has changed");
	is(answers($open, @tokens), $before, "$name: it goes on");
	$open->quit;

	# The library
	my $log = -s $node->logfile;
	$node->restart;
	if ($to eq $next_version)
	{
		like(
			failure($node, "SELECT session_create('ann')"),
			qr/^55000: +$newer.*^DETAIL: +The library has version \Q$to\E, the extension \Q$from\E\..*^HINT: +Run ALTER EXTENSION session_manager UPDATE/ms,
			"$name: under the new library functions say what to do");
		ok( wait_until(
				sub {
					slurp_file($node->logfile, $log) =~
					  /WARNING:  session_manager is at version \Q$from\E in database "postgres", but the library is at version \Q$to\E/;
				}),
			"$name: a worker warns");
	}

	# The SQL
	$node->safe_psql('postgres', 'ALTER EXTENSION session_manager UPDATE');
	my $after = connection($node);
	is(answers($after, @tokens),
		$before, "$name: every token answers as before");
	is(kept($node), $kept,
		"$name: sessions, events and keys are as they were");
	ok(wait_until(sub { info($node, 'workers') =~ /^on/ }),
		"$name: workers serve it");
	traffic_ends($name, $newer, @traffic);
	as_fresh($node, 'postgres', $name);
	$after->quit;
	return $node;
}

# Not preloaded: connections that are open keep the old library, new ones have
# the new one.
sub update_loaded
{
	my ($old, $new) = @_;
	my ($from, $to) = map { version_of($_) } $old, $new;
	my $name = "$from to $to, not preloaded";
	my $node = start_server("loaded_$from", $old, 0);
	my @tokens = fill($node);
	my $open = connection($node);
	my ($before, $kept) = (answers($open, @tokens), kept($node));
	my @traffic = traffic_on($node);
	# each client has its connection, with the library that it loaded
	ok( wait_until(
			sub {
				$node->safe_psql('postgres',
					'SELECT count(*) FROM user_sessions') > 100;
			}),
		"$name: under traffic");

	install($new);
	like(
		scalar((query($open, 'ALTER EXTENSION session_manager UPDATE'))[1]),
		qr/55000: +the extension cannot be updated/,
		"$name: a connection with the old library cannot update it");
	$node->safe_psql('postgres', 'ALTER EXTENSION session_manager UPDATE');
	is(answers($open, @tokens),
		$before, "$name: the old library goes on under the new SQL");
	my $after = connection($node);
	is(answers($after, @tokens),
		$before, "$name: and new connections find the same");
	is(kept($node), $kept,
		"$name: sessions, events and keys are as they were");
	traffic_ends($name, $newer, @traffic);
	as_fresh($node, 'postgres', $name);
	$_->quit foreach $open, $after;
	$node->stop;
	return;
}

my $next = make_next();
my %releases = map { version_of($_) => $_ }
  grep { version_of($_) ne version_of($tree) }
  $ENV{RELEASES} ? glob("$ENV{RELEASES}/*") : ();
system_or_bail('make', '-s', '-j2', '-C', $_, 'COPT=-O0',
	"PG_CONFIG=$ENV{PG_CONFIG}")
  foreach values %releases;
foreach my $pair ((map { [ $releases{$_}, $tree ] } sort keys %releases),
	[ $tree, $next ])
{
	update_loaded(@$pair);
	my $node = update_preloaded(@$pair);
	if ($pair->[1] ne $next)
	{
		$node->stop;
		next;
	}

	# Back to the old library: it serves what it knows, and says what it is.
	install($tree);
	$node->restart;
	is( $node->safe_psql(
			'postgres', "SELECT count(*) FROM session_create('ann')"),
		1,
		'the old library serves the new SQL where it knows the tables');
	ok( wait_until(
			sub { info($node, 'workers') =~ /is newer than the library/ }),
		'and session_info says that it is old');
	like(
		failure($node, 'SELECT session_next()'),
		qr/could not find function "sm_session_next"/,
		'what it does not have fails');
	install($next);
	$node->restart;
	is($node->safe_psql('postgres', 'SELECT session_next()'),
		$next_version, 'with the new library it works');

	# Tables that are not as the library knows them: the versions say why.
	$node->safe_psql('postgres',
		'ALTER TABLE session_issuers RENAME label TO name');
	foreach my $case (
		[
			'9999.0',
			qr/the library of session_manager is older than the extension/
		],
		[ '0.9', $newer ],
		[
			$next_version,
			qr/relation "session_issuers" .* does not have the structure/
		])
	{
		my ($version, $message) = @$case;
		$node->safe_psql('postgres',
			"UPDATE pg_extension SET extversion = '$version' WHERE extname = 'session_manager'"
		);
		like(failure($node, "SELECT session_create('ann')"),
			$message, "altered tables of version $version");
	}
	$node->stop;
}

# Every version that can be installed leads to the newest, in the next tree.
install($next);
my $node = new_node('paths', extension => 0);
$node->safe_psql('postgres', 'CREATE ROLE clerk');
foreach my $extension ('session_manager',
	has_module('plproxy') ? 'session_manager_router' : ())
{
	my @versions = split /\n/,
	  $node->safe_psql('postgres',
		"SELECT version FROM pg_available_extension_versions WHERE name = '$extension' AND version <> '$next_version'"
	  );
	cmp_ok(scalar(@versions), '>', 0, "$extension: there are versions");
	foreach my $version (@versions)
	{
		my $dbname = 'old';
		$node->safe_psql(
			'postgres', qq(
			DROP DATABASE IF EXISTS old;
			DROP DATABASE IF EXISTS fresh;
			CREATE DATABASE old;
			CREATE DATABASE fresh;));
		$node->safe_psql('old',
			"SET client_min_messages = warning; CREATE EXTENSION $extension VERSION '$version' CASCADE"
		);
		$node->safe_psql('fresh',
			"SET client_min_messages = warning; CREATE EXTENSION $extension CASCADE"
		);
		$node->safe_psql('old', "ALTER EXTENSION $extension UPDATE");
		is(join("\n", differences($node, $extension, 'old')),
			'',
			"$extension: $version becomes $next_version as a fresh one is");
	}
}

# A difference would be seen.
$node->safe_psql(
	'old', q(
	COMMENT ON FUNCTION session_next() IS 'another';
	GRANT EXECUTE ON FUNCTION session_next() TO clerk;));
my @seen =
	has_module('plproxy')
  ? differences($node, 'session_manager_router', 'old')
  : differences($node, 'session_manager', 'old');
is(scalar(@seen), 4, 'a comment and a privilege that differ are seen')
  or diag(join "\n", @seen);

done_testing();
