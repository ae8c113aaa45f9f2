# Keys: rotation under way, key files that are unusable in every way, and what
# open connections notice of a change.  A server starts whatever the key file
# looks like, functions say what is wrong with it, and nothing has to reconnect
# when it is put right.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my ($first, $second) = (random_key(), random_key());

sub live_in
{
	my ($connection, $token) = @_;
	return query($connection,
		"SELECT count(*) FROM session_get('$token', touch => false)") eq '1';
}

# An open connection reads the file again at most once a second: it may have
# to be asked again, but says what it misses meanwhile.
sub comes_to
{
	my ($connection, $sql, $expected, $name) = @_;
	my ($output, $error);
	my $reached = wait_until(
		sub {
			($output, $error) = query($connection, $sql);
			return $output eq $expected if $error eq '';
			like(
				$error,
				qr/SM003:.*session_manager\.key_file/s,
				"$name (meanwhile)");
			return 0;
		},
		10);
	is($output, $expected, $name);
	return;
}

sub rotation
{
	my ($node, $kind) = @_;
	my $file = key_file($node);
	my $open = connection($node);
	my @tokens =
	  map { create_session($node, "user$_", qq('{"n": $_}')) } 1 .. 30;
	my $states =
	  "SELECT key_id, state, available FROM session_keys() ORDER BY 1";

	is(query($open, $states), '1|active|t', "$kind: one key");
	like(failure($node, 'SELECT session_key_add(2)'),
		qr/^SM003:.*\b2\b/,
		"$kind: a key that is not in the file is not added");
	append_to_file($file, "2:$second\n");
	$node->safe_psql('postgres', 'SELECT session_key_add(2)');
	comes_to($open, $states, "1|active|t\n2|added|t", "$kind: added");
	is(count_live($node, @tokens), 30, "$kind: sessions are live as before");
	$node->safe_psql('postgres', 'SELECT session_key_activate(2)');
	comes_to($open, $states, "1|inactive|t\n2|active|t", "$kind: activated");

	my $fresh = create_session($node, 'fresh');
	comes_to(
		$open, "SELECT length(session_token) FROM session_create('new')",
		'68', "$kind: an open connection creates a session");
	is( $node->safe_psql(
			'postgres',
			"SELECT DISTINCT key_id, verifier_key_id FROM user_sessions WHERE user_id IN ('fresh', 'new')"
		),
		'2|2',
		"$kind: with the new key");
	isnt(failure($node, 'SELECT session_key_retire(1)'),
		'', "$kind: a key in use is not retired");

	my ($batches, $sealed) = (0, 0);
	while (my $n = query($open, 'SELECT session_reencrypt(7)'))
	{
		cmp_ok($n, '<=', 7, "$kind: a batch is no larger than asked");
		$sealed += $n;
		last if ++$batches > 30;
	}
	is($sealed, 30, "$kind: every session is re-sealed once");
	is( $node->safe_psql(
			'postgres', 'SELECT DISTINCT key_id FROM user_sessions'),
		'2',
		"$kind: nothing is sealed with the old key");
	is( $node->safe_psql(
			'postgres', "SELECT data FROM session_get('$tokens[16]')"),
		'{"n": 17}',
		"$kind: a re-sealed session reads as before");
	is(count_live($node, @tokens), 30, "$kind: so do all");
	isnt(failure($node, 'SELECT session_key_retire(1)'),
		'', "$kind: verifiers still hold the old key");

	$node->safe_psql('postgres', join ';',
		map { "SELECT session_refresh('$_')" } @tokens);
	is( $node->safe_psql(
			'postgres', 'SELECT DISTINCT verifier_key_id FROM user_sessions'),
		'2',
		"$kind: a refresh moves the verifier");
	is(count_live($node, @tokens), 30, "$kind: and the tokens work");
	$node->safe_psql('postgres', 'SELECT session_key_retire(1)');
	write_file($file, "# the first key is gone\n\n2:$second\n");
	$node->reload;
	comes_to($open, $states, "1|retired|f\n2|active|t",
		"$kind: retired and taken out of the file");
	is(count_live($node, @tokens, $fresh),
		31, "$kind: the sessions outlive their first key");
	$node->restart;
	is(count_live($node, @tokens, $fresh), 31, "$kind: also over a restart");

	$open->quit;
	return;
}

# Ways for a key file to be unusable.  Each gets the path to spoil.
my %spoil = (
	'missing' => sub { unlink $_[0] },
	'readable by all' => sub { chmod 0604, $_[0] },
	'readable by the group' => sub { chmod 0640, $_[0] },
	'a directory' => sub { unlink $_[0]; mkdir $_[0], 0700 },
	'empty' => sub { write_file($_[0], '') },
	'not hexadecimal' => sub { write_file($_[0], '1:' . 'x' x 64 . "\n") },
	'of a short key' =>
	  sub { write_file($_[0], '1:' . substr($first, 1) . "\n") },
	'of a long key' => sub { write_file($_[0], "1:${first}0\n") },
	'without ids' => sub { write_file($_[0], "$first\n") },
	'of id 0' => sub { write_file($_[0], "1:$first\n0:$second\n") },
	'of a negative id' => sub { write_file($_[0], "1:$first\n-1:$second\n") },
	'of an id too large' =>
	  sub { write_file($_[0], "1:$first\n2147483648:$second\n") },
	'of one id twice' => sub { write_file($_[0], "1:$first\n1:$second\n") },
	'followed by rubbish' => sub { write_file($_[0], "1:$first\nrubbish\n") },
	'of another key under the id' => sub { write_file($_[0], "1:$second\n") },
	'of another id' => sub { write_file($_[0], "2:$second\n") },);

# In these nothing is wrong as long as nobody asks for a key.
my %well_formed =
  map { $_ => 1 } ('empty', 'of another key under the id', 'of another id');

sub restore
{
	my ($file) = @_;
	rmdir $file if -d $file && !-l $file;
	write_file($file, "1:$first\n");
	return;
}

sub unusable_files
{
	my ($node, $kind, $preloaded) = @_;
	my $file = key_file($node);

	restore($file);
	$node->restart;
	my $token = create_session($node, 'ann');

	foreach my $way (sort keys %spoil)
	{
		my $label = "$kind, a file $way";
		my $logged = -s $node->logfile;

		# Preloaded, the file is read at start.  Otherwise connections read
		# it: a new one will do.
		$node->stop if $preloaded;
		$spoil{$way}->($file);
		if ($preloaded)
		{
			ok($node->start(fail_ok => 1), "$label: the server starts");
			ok( $well_formed{$way}
				  || slurp_file($node->logfile, $logged) =~ /WARNING/,
				"$label: and warns");
		}

		my $open = connection($node);
		foreach my $call (
			"session_get('$token')", "session_create('bob')",
			"session_update('$token', '{}')", "session_refresh('$token')")
		{
			my ($output, $error) = query($open, "SELECT $call");
			like($error, qr/ERROR:\s+SM003:.*\b1\b/,
				"$label: $call fails and names the key");
			like($error, qr/session_manager\.key_file/,
				"$label: and the setting");
		}
		is(query($open, 'SELECT available FROM session_keys()'),
			'f', "$label: session_keys() shows it");

		restore($file);
		$node->reload;
		ok( wait_until(sub { live_in($open, $token) }, 15),
			"$label: an open connection goes on when it is put right");
		$open->quit;

		my $log = slurp_file($node->logfile, $logged);
		unlike(
			$log,
			qr/\Q@{[ substr($_, 1, 16) ]}\E/,
			"$label: no key in the log") foreach $first, $second;
	}

	# A key that appears in the file is found without a reload, as soon as it
	# is needed.
	my $open = connection($node);
	ok(live_in($open, $token), "$kind: an open connection has read the file");
	append_to_file($file, "2:$second\n");
	$node->safe_psql('postgres',
		'SELECT session_key_add(2), session_key_activate(2)');
	my $fresh = create_session($node, 'bob');
	ok(wait_until(sub { live_in($open, $fresh) }, 15),
		"$kind: an unknown id makes a connection read the file again");
	$open->quit;
	return;
}

foreach my $preloaded (0, 1)
{
	my $kind = $preloaded ? 'preloaded' : 'not preloaded';
	my $node = new_node(
		"keys$preloaded",
		key => $first,
		preload => $preloaded ? 'session_manager' : '',
		# a worker would seal sessions before session_reencrypt does
		conf => "session_manager.sweep_interval = 1h\n");
	rotation($node, $kind);

	$node->safe_psql('postgres',
		'DROP EXTENSION session_manager; CREATE EXTENSION session_manager');
	restore(key_file($node));
	$node->restart;
	$node->safe_psql('postgres', 'SELECT session_key_add(1)');
	unusable_files($node, $kind, $preloaded);
	$node->stop;
}

# Made from nothing
my $node = new_node('made', extension => 0);
my $file = key_file($node);
unlink $file;
$node->safe_psql('postgres', 'CREATE EXTENSION session_manager CASCADE');
like(
	failure($node, "SELECT session_create('ann')"),
	qr/^SM003:.*HINT:.*public\.session_key_generate/s,
	'without a key, session_create says what to do');
is( $node->safe_psql(
		'postgres', 'SELECT session_key_generate(), session_key_generate()'),
	'1|2',
	'keys are generated');
is((stat $file)[2] & 07777, 0600, 'into a file for the server alone');
like(
	slurp_file($file),
	qr/\A1:([0-9a-f]{64})\n2:(?!\1)[0-9a-f]{64}\n\z/,
	'one a line, all different');
is( $node->safe_psql(
		'postgres',
		'SELECT key_id, state, available FROM session_keys() ORDER BY 1'),
	"1|active|t\n2|added|t",
	'the first is active');
my $token = create_session($node, 'ann');
is(live($node, $token), '1', 'and used');

# A revoked key is noticed by the very next call of every connection.
my @open = map { connection($node) } 1 .. 3;
ok(live_in($_, $token), 'an open connection has everything cached')
  foreach @open;
query($open[0], 'SELECT session_key_revoke(1)');
ok(!live_in($_, $token), 'the next call finds the session dead')
  foreach @open;
like((query($open[1], "SELECT session_create('ann')"))[1],
	qr/SM003/, 'no key is active');
query($open[0], 'SELECT session_key_activate(2)');
isnt(query($open[1], "SELECT session_token FROM session_create('ann')"),
	'', 'another key is');
is( query(
		$open[2],
		'SELECT key_id FROM user_sessions WHERE verifier_key_id = 2'),
	'2',
	'and used');

# So is a revoked session.
my $next = query($open[1], "SELECT session_token FROM session_create('bob')");
ok(live_in($_, $next), 'another session') foreach @open;
query($open[0], "SELECT session_invalidate('$next')");
ok(!live_in($_, $next), 'is dead in the next call') foreach @open;
$_->quit foreach @open;

# Inside the data directory, where every base backup takes it along; also by a
# path that only leads there
my $inside = $node->data_dir . '/session_manager.keys';
my $way = $node->basedir . '/way';
symlink $node->data_dir, $way;
write_file($inside, slurp_file($file));
$node->append_conf('postgresql.conf',
	"shared_preload_libraries = 'session_manager'");
foreach my $path ($inside, "$way/session_manager.keys")
{
	my $logged = -s $node->logfile;
	$node->append_conf('postgresql.conf',
		"session_manager.key_file = '$path'");
	$node->restart;
	ok(slurp_file($node->logfile, $logged) =~ /WARNING.*data directory/,
		'a key file in the data directory is warned of');
	isnt(create_session($node, 'carl'), '', 'and works');
}

# As Kubernetes mounts a secret: a link to a file in a directory that a link
# leads to, which is exchanged when the secret changes
my $mount = $node->basedir . '/secret';
mkdir "$mount";
my $generated = slurp_file($file);
foreach my $version (1, 2)
{
	mkdir "$mount/..version$version";
	write_file("$mount/..version$version/keys",
		$generated . ($version == 2 ? "77:$first\n" : ''));
}
symlink '..version1', "$mount/..data";
symlink '..data/keys', "$mount/keys";
$node->append_conf('postgresql.conf',
	"session_manager.key_file = '$mount/keys'");
$node->restart;
isnt(create_session($node, 'dave'), '', 'a key file behind links works');
symlink '..version2', "$mount/..data_tmp";
rename "$mount/..data_tmp", "$mount/..data";
$node->reload;
ok( wait_until(
		sub { failure($node, 'SELECT session_key_add(77)') eq '' }, 30),
	'and is read again when it is exchanged');
isnt(failure($node, 'SELECT session_key_generate()'),
	'', 'but nothing is written through a link');
chmod 0644, "$mount/..version2/keys";
$node->restart;
like(
	failure($node, "SELECT session_create('eve')"),
	qr/^SM003:.*accessible to others/s,
	'what counts is the mode of the file itself');
chmod 0600, "$mount/..version2/keys";

# Not set
$node->append_conf('postgresql.conf', "session_manager.key_file = ''");
$node->restart;
like(
	failure($node, "SELECT session_create('dora')"),
	qr/^SM003:.*session_manager\.key_file/s,
	'without the setting, functions name it');

done_testing();
