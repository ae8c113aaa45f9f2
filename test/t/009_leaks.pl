# What must not leak: tokens, the plaintext of session data, keys.
#
# A server with the library preloaded is sent literal tokens and is made to log
# all it can: the redactor must mask every one.  A server without it is sent
# digest forms, as clients should: then no file at all, neither log nor WAL nor
# tables nor statistics, may hold a secret.  Last, core dumps of both are
# searched for keys.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/lib";

use File::Find;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

# The marker of session data, in two parts: only what the extension puts
# together may hold it whole.
my @marker = ('Kp8wQ3', 'vN7zRt');
my $data =
  qq(jsonb_build_object(current_setting('leak.a') || current_setting('leak.b'),
	current_setting('leak.a') || current_setting('leak.b')));
my $key = random_key();

# Log as much as each way of logging gives.  Every one is a way that a
# statement, a parameter or an error reaches the log.
my %logging = (
	'log_statement' => { log_statement => 'all', log_duration => 'on' },
	'log_min_duration_statement' =>
	  { log_min_duration_statement => 0, log_parameter_max_length => -1 },
	'cut parameters' =>
	  { log_min_duration_statement => 0, log_parameter_max_length => 40 },
	'sampling' => {
		log_min_duration_sample => 0,
		log_statement_sample_rate => 1,
		log_transaction_sample_rate => 1
	},
	'errors' => {
		log_error_verbosity => 'verbose',
		log_min_error_statement => 'info',
		log_min_messages => 'debug2',
		log_parameter_max_length_on_error => -1
	},
	'auto_explain' => {
		'auto_explain.log_min_duration' => 0,
		'auto_explain.log_nested_statements' => 'on',
		'auto_explain.log_verbose' => 'on',
		'auto_explain.log_analyze' => 'on',
		'auto_explain.log_triggers' => 'on',
		log_parameter_max_length_on_error => 64,
	},
	'auto_explain, json' => {
		'auto_explain.log_min_duration' => 0,
		'auto_explain.log_format' => 'json',
		'auto_explain.log_nested_statements' => 'on',
		'auto_explain.log_verbose' => 'on',
	},);

# Servers without these modules log less.
my @modules = grep { has_module($_) } 'pg_stat_statements', 'auto_explain';
delete @logging{ grep { /auto_explain/ } keys %logging }
  unless grep { $_ eq 'auto_explain' } @modules;
my $statements = grep { $_ eq 'pg_stat_statements' } @modules;

sub new_logging_node
{
	my ($name, $preload) = @_;
	my $node = new_node(
		$name,
		key => $key,
		preload => $preload,
		streaming => 1,
		conf => qq(
logging_collector = on
log_destination = 'stderr,csvlog,jsonlog'
log_rotation_size = 0
deadlock_timeout = 10ms
log_lock_waits = on
restart_after_crash = on
track_activity_query_size = 32kB
pg_stat_statements.track = all
));
	$node->safe_psql('postgres', 'CREATE EXTENSION pg_stat_statements')
	  if $statements;
	$node->safe_psql(
		'postgres', q(
		CREATE TABLE cookies (token text PRIMARY KEY CHECK (length(token) < 100));
		CREATE TABLE pair AS SELECT generate_series(1, 2) AS k;
		CREATE FUNCTION look(t text) RETURNS bigint LANGUAGE plpgsql AS
			'BEGIN RETURN (SELECT count(*) FROM session_get(t)); END';));
	return $node;
}

# Use every function that takes a token, and make every kind of error that
# can carry one.  $t and the others stand for forms of tokens.
sub statements
{
	my ($t, $t2, $t3) = @_;
	my $filler = '1 + ' x 5_000 . '1';
	return qq{
		SET leak.a = '$marker[0]';
		SET leak.b = '$marker[1]';
		SELECT count(*) FROM session_get('$t', '192.0.2.1', 'agent');
		SELECT version FROM session_update('$t', $data);
		SELECT version FROM session_update('$t', $data, 2, true);
		SELECT session_update_user('leak', $data);
		SELECT session_token FROM session_refresh('$t', true);
		SELECT session_token FROM session_refresh('$t', true);
		SELECT session_token FROM session_elevate('$t2', $data, $data);
		SELECT session_token FROM session_create('leak', $data), session_switch_tenant(session_token, 'other', $data) AS s(status, id, new);
		BEGIN;
		SELECT session_bind('$t3'), session_user_id();
		COMMIT;
		SELECT count(*) FROM session_list('leak', '$t3');
		SELECT session_status('$t3'), session_end_reason('$t3'), session_token_digest('$t3');
		SELECT length(session_export('leak'));
		SELECT session_reencrypt();
		SELECT count(*) FROM session_history();
		SELECT look('$t3');
		PREPARE get(text) AS SELECT count(*) FROM session_get(\$1);
		EXECUTE get('$t3');

		SELECT session_update('$t3', $data, 77);
		SELECT session_update('$t3', jsonb_build_array($data));
		SELECT session_update('$t3', jsonb_build_object('a', repeat(current_setting('leak.a') || current_setting('leak.b'), 10000)));
		SELECT session_create('leak', $data, '-1 s');
		SELECT session_create('leak', jsonb_build_array($data));
		SELECT session_get('$t3', 'no address');
		SELECT session_gett('$t3');
		SELECT session_get('$t3') oops oops oops;
		SELECT '$t3'::int;
		SELECT '$t3'::uuid;
		SELECT '$t3'::jsonb;
		SELECT '{"token": "$t3}'::jsonb;
		SELECT $filler, '$t3', 1 / 0;
		SELECT 'sm1_$t3 x$t3/$t3"$t3' || '$t3', 1 / 0;
		SELECT E'\\\\$t3\\n$t3'::int;
		INSERT INTO cookies VALUES ('$t3');
		INSERT INTO cookies VALUES ('$t3');
		INSERT INTO cookies VALUES ('$t3 $t3');
		DELETE FROM cookies;
		COPY cookies FROM stdin;
$t3	$t3
\\.
		SELECT "$t3" FROM cookies;
		NOTIFY c, '$t3$t3';
		DO \$\$ BEGIN RAISE LOG '$t3 %', '$t3'; END \$\$;
		DO \$\$ BEGIN RAISE EXCEPTION '$t3' USING DETAIL = '$t3', HINT = '$t3', COLUMN = '$t3'; END \$\$;
		DO \$\$ BEGIN EXECUTE 'SELECT session_gett(''$t3'')'; END \$\$;
		DO \$\$ BEGIN PERFORM look('$t3'), 1 / 0; END \$\$;
		DO \$\$ BEGIN PERFORM session_update('$t3', '{}', 99); END \$\$;
		-- $t3
		SELECT /* $t3 */ 1 / 0;
		SELECT session_invalidate_all('leak', '$t3');
		SELECT session_invalidate('$t3');
	};
}

# The same with parameters, as drivers send them.
sub parameters
{
	my ($node, $t, %env) = @_;
	my $script = $node->basedir . '/parameters.sql';
	my $out = $node->basedir . '/parameters.out';
	foreach my $statement (
		"SELECT count(*) FROM session_get(:t)",
		"SELECT session_update(:t, '{}', 99)",
		"SELECT :t::int",
		"SELECT look(:t) / 0",
		"INSERT INTO cookies VALUES (:t || :t)")
	{
		write_file($script, "$statement;\n");
		finish_all(
			in_parallel(
				$node,
				{
					cmd => [
						'pgbench', '-n', '-t', '1', '-M', 'prepared',
						'-D', "t=$t", '-f', $script,
						$node->connstr('postgres')
					],
					out => $out,
					env => \%env
				}));
	}
	return;
}

# Start a statement that does not end by itself.
sub start_statement
{
	my ($node, $connection, $sql, $state) = @_;
	my $pid = query($connection, 'SELECT pg_backend_pid()');
	$connection->query_until(qr/sent/, "\\echo sent\n$sql;\n");
	$node->poll_query_until('postgres',
		"SELECT wait_event_type = '$state' FROM pg_stat_activity WHERE pid = $pid"
	) or die 'the statement does not wait';
	return $pid;
}

# A deadlock prints what every process in it is running, and the postmaster
# what a process that was killed had been.
sub other_processes
{
	my ($node, $t) = @_;
	my ($one, $two, $three) = map { connection($node) } 1 .. 3;
	query($one, 'BEGIN; UPDATE pair SET k = k WHERE k = 1');
	query($two, 'BEGIN; UPDATE pair SET k = k WHERE k = 2');
	start_statement($node, $one,
		"UPDATE pair SET k = k WHERE k = 2 AND '$t' <> ''", 'Lock');
	query($two, "UPDATE pair SET k = k WHERE k = 1 AND '$t' <> ''");
	query($_, 'ROLLBACK') foreach $two, $one;
	$_->quit foreach $two, $one;

	kill 'KILL',
	  start_statement($node, $three, "SELECT pg_sleep(600), '$t'", 'Timeout');
	$three->{run}->finish;
	$node->poll_query_until('postgres', 'SELECT true')
	  or die 'the server does not come back';
	return;
}

# Run everything under each way of logging; returns the tokens in play.
sub exercise
{
	my ($node, $form) = @_;
	my @tokens;
	foreach my $way (sort keys %logging)
	{
		my @three =
		  map { create_session($node, 'leak', "user_agent => 'Agent-Uj5'") }
		  1 .. 3;
		my %set = %{ $logging{$way} };
		my $settings = join ' ', map { "-c $_=$set{$_}" } sort keys %set;
		my @forms = map { $form->($_) } @three;

		{
			local $ENV{PGOPTIONS} = $settings;
			my ($status, $stdout, $stderr) =
			  $node->psql('postgres', statements(@forms), on_error_stop => 0);
			push @tokens, @three, $stdout =~ /\b(sm1_[A-Za-z0-9_-]{64})$/mg;
			my $errors = () = $stderr =~ /ERROR/g;
			cmp_ok($errors, '>=', 24, "$way: errors are made");
		}
		my $more = create_session($node, 'leak');
		push @tokens, $more;
		parameters($node, $form->($more), PGOPTIONS => $settings);
	}
	return @tokens;
}

# The files below a directory in which a pattern matches.
sub scan
{
	my ($dir, $pattern) = @_;
	my @found;
	find(
		{
			no_chdir => 1,
			wanted => sub {
				return unless -f $_;
				my $name = $_;
				open my $fh, '<:raw', $name or return;
				my ($tail, $chunk) = ('');
				while (read $fh, $chunk, 1 << 20)
				{
					$chunk = $tail . $chunk;
					if ($chunk =~ $pattern)
					{
						push @found, $name;
						last;
					}
					$tail =
					  length $chunk > 400 ? substr($chunk, -400) : $chunk;
				}
				close $fh;
			}
		},
		$dir);
	return @found;
}

# All that gives the secret of a token away, also in part, in text and binary.
sub secrets
{
	my @patterns;
	foreach my $token (@_)
	{
		my ($id, $secret) = token_parts($token);

		# Characters 22 on are of the secret alone.
		push @patterns, map { quotemeta } substr($token, 4 + 22, 12),
		  substr($token, -12),
		  substr($secret, 0, 12), substr($secret, -12),
		  unpack('H*', substr($secret, 0, 12)),
		  unpack('H*', substr($secret, -12));
	}
	my $all = join '|', @patterns;
	return qr/$all/;
}

# What a database derives from its key and uses, as bytes; computed apart from
# the extension and compared by the one value that is no secret.
sub subkeys
{
	my ($node) = @_;
	my ($installation, $check) = split /\|/, $node->safe_psql(
		'postgres', q(
		SELECT replace(installation_id::text, '-', ''), encode(check_value, 'hex')
		FROM session_installation, session_keys));
	my $derive = <<'EOP';
import hashlib, sys
master, installation = map(bytes.fromhex, sys.argv[1:])
k = hashlib.blake2b(b'session_manager' + installation, key=master, digest_size=32).digest()
print(k.hex())
for context in b'sm_seal_', b'sm_verif', b'sm_check':
    print(hashlib.blake2b(key=k, digest_size=32, salt=(1).to_bytes(16, 'little'), person=context).hexdigest())
EOP
	my ($stdout, $stderr) = ('', '');
	unless (
		eval {
			IPC::Run::run([ 'python3', '-c', $derive, $key, $installation ],
				'>', \$stdout, '2>', \$stderr);
		})
	{
		note 'no Python: only the master key is looked for';
		return;
	}
	my @derived = split /\n/, $stdout;
	is(pop @derived, $check, $node->name . ': subkeys are known');
	return map { pack('H*', $_) } @derived;
}

my $whole_marker = qr/$marker[0]$marker[1]/;

# Preloaded, literal tokens
my $redacted =
  new_logging_node('redacted', join ',', 'session_manager', @modules);
my @literal = exercise($redacted, sub { $_[0] });
cmp_ok(scalar(@literal), '>', 40, 'tokens to look for');
push @literal, create_session($redacted, 'leak');
other_processes($redacted, $literal[-1]);
my $logs = $redacted->data_dir . '/log';
my @kinds = scan($logs, qr/session_gett/);
is(join(' ', sort map { /(\w+)$/ } @kinds),
	'csv json log', 'every format of the log has the statements');
is_deeply([ scan($logs, $_) ], \@kinds, "and '$_'")
  foreach 'invalid input syntax', 'Process \d+: UPDATE pair',
  'Failed process was running: SELECT pg_sleep';
is_deeply([ scan($logs, secrets(@literal)) ],
	[], 'redacted: no token in the log, not even in part');
is_deeply([ scan($logs, qr/sd1_[A-Za-z0-9_-]{30}/) ],
	[], 'redacted: no digest form either');
is_deeply([ scan($logs, $whole_marker) ],
	[], 'redacted: no session data in the log');

# Switched off, the same search must find them: it is not blind.
$redacted->safe_psql('postgres',
	"ALTER SYSTEM SET session_manager.redact_tokens = off; SELECT pg_reload_conf()"
);
my $bare = create_session($redacted, 'leak');
wait_until(
	sub {
		$redacted->psql('postgres', "SELECT '$bare'::int");
		return scan($logs, secrets($bare)) == @kinds;
	});
is_deeply([ scan($logs, secrets($bare)) ],
	\@kinds, 'redact_tokens off: the token is in every log');

# Not preloaded, digest forms
my $digest = new_logging_node('digest', join ',', @modules);
my $busy = connection($digest);
my $held = create_session($digest, 'leak', "'{}'");
query($busy, 'BEGIN');
query($busy, "SELECT user_id FROM session_get('@{[ digest_form($held) ]}')");
my @hidden = (exercise($digest, \&digest_form), $held);
my $nothing = secrets(@hidden);

foreach my $view ('pg_stat_activity', $statements ? 'pg_stat_statements' : ())
{
	my $text = $digest->safe_psql('postgres', "SELECT query FROM $view");
	like($text, qr/session_get/, "$view has the statements");
	unlike($text, $nothing, "$view: no token");
	unlike($text, $whole_marker, "$view: no session data");
}
$busy->quit;

# Strings of the tables themselves prove that the search sees them.
$digest->safe_psql('postgres', 'CHECKPOINT');
foreach my $state ('running', 'stopped')
{
	$digest->stop if $state eq 'stopped';
	my $all = $digest->data_dir;
	foreach my $place ('base', 'pg_wal')
	{
		cmp_ok(scalar(scan("$all/$place", qr/Agent-Uj5/)),
			'>', 0, "$state: $place has the sessions");
	}
	cmp_ok(scalar(scan("$all/log", qr/session_gett/)),
		'>', 0, "$state: the log has the statements");
	is_deeply([ scan($all, $nothing) ],
		[], "$state: no token in any file of the server");
	is_deeply([ scan($all, $whole_marker) ],
		[], "$state: no session data in any file of the server");
}
$digest->start;

# Core dumps
SKIP:
{
	my ($gcore) = grep { -x } map { "$_/gcore" } split /:/, $ENV{PATH};
	skip 'gcore is not installed', 1 unless defined $gcore;

	my $keys = join '|',
	  map { quotemeta } $key, uc $key, pack('H*', $key), subkeys($digest),
	  subkeys($redacted);
	foreach my $node ($digest, $redacted)
	{
		my $connection = connection($node);
		query(
			$connection,
			"SELECT session_token AS t FROM session_create('core') \\gset
			SELECT count(*) FROM session_get(:'t') \\g /dev/null");
		my %dumped = (
			'a backend' =>
			  scalar(query($connection, 'SELECT pg_backend_pid()')),
			'the postmaster' => (
				split /\n/, slurp_file($node->data_dir . '/postmaster.pid')
			)[0]);
		foreach my $what (sort keys %dumped)
		{
			my $core = $node->basedir . "/core";
			run_log([ $gcore, '-o', $core, $dumped{$what} ]);
			$core .= ".$dumped{$what}";
			skip 'gcore may not trace a process here', 1 unless -s $core;
			my $label = $node->name . ", core of $what";
			is(scalar(scan($core, qr/session_manager\.key_file/)),
				1, "$label: has the heap");
			is_deeply([ scan($core, qr/$keys/) ], [], "$label: no key");
			unlink $core;
		}
		$connection->quit;
	}
}

done_testing();
