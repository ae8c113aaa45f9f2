
=pod

=head1 NAME

WatchTest - Prometheus and its exporter beside servers under load

=head1 DESCRIPTION

Debian's prometheus-postgres-exporter, one for each server, asks what
docs/postgres_exporter.yml says, and prometheus evaluates the rules of
docs/session_manager_alerts.yml.  All durations in these are divided by a
factor, mechanically, and nothing else is changed: with a factor of 60 an hour
is a minute.  Both listen on free ports of the loopback interface, and end with
the test.

=cut

package WatchTest;

use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename;
use HTTP::Tiny;
use IPC::Run;
use JSON::PP;
use List::Util qw(max);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(start_load stop_load faults);

my $docs = abs_path(dirname(__FILE__) . '/../../../docs');
my %unit = (ms => 1, s => 1000, m => 60_000, h => 3_600_000, d => 86_400_000);

# RFC 7517, appendix A.1
my $key =
  '{"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}';

# A duration of Prometheus, divided.
sub scaled
{
	my ($number, $unit, $factor) = @_;
	return int($number * $unit{$unit} / $factor) . 'ms';
}

# The shipped rules with each duration divided: ranges, offsets and "for".
sub scaled_rules
{
	my ($factor) = @_;
	my $rules = slurp_file("$docs/session_manager_alerts.yml");
	$rules =~
	  s/(\[|offset |for: )(\d+)(ms|[smhd])\b/$1 . scaled($2, $3, $factor)/ge;
	return $rules;
}

# The rules as they are shipped: name, and how long the condition must hold.
sub rules
{
	my $text = slurp_file("$docs/session_manager_alerts.yml");
	my %rules;
	while ($text =~
		/^      - alert: (\w+)\n        expr: (.*)\n(?:        for: (\d+)(\w)\n)?/mg
	  )
	{
		$rules{$1} = { expr => $2, for => $3 ? $3 * $unit{$4} / 1000 : 0 };
	}
	return \%rules;
}

# Start the exporters of some nodes, whose names are the targets' label
# "instance", and Prometheus.
sub new
{
	my ($class, $factor, @nodes) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $self = bless {
		factor => $factor,
		port => PostgreSQL::Test::Cluster::get_free_port(),
		running => [],
		http => HTTP::Tiny->new(timeout => 60),
	}, $class;
	my $targets = '';
	# where the rules' windows have room for it, one that a busy machine keeps
	my $scrape = $factor < 60 ? '3s' : '1s';

	foreach my $node (@nodes)
	{
		my $port = PostgreSQL::Test::Cluster::get_free_port();
		local $ENV{DATA_SOURCE_NAME} =
			'host='
		  . $node->host
		  . ' port='
		  . $node->port
		  . ' user=monitoring dbname=postgres sslmode=disable';
		$self->run(
			"$dir/exporter-" . $node->name,
			'prometheus-postgres-exporter',
			"--web.listen-address=127.0.0.1:$port",
			'--disable-default-metrics',
			'--disable-settings-metrics',
			"--extend.query-path=$docs/postgres_exporter.yml");
		$targets .= "      - targets: ['127.0.0.1:$port']\n"
		  . "        labels: {instance: '@{[ $node->name ]}'}\n";
	}
	write_file("$dir/rules.yml", scaled_rules($factor));
	write_file("$dir/prometheus.yml", <<"END");
global:
  scrape_interval: $scrape
  scrape_timeout: $scrape
  evaluation_interval: 500ms
rule_files: ['$dir/rules.yml']
scrape_configs:
  - job_name: postgres
    static_configs:
$targets
END
	$self->run(
		"$dir/prometheus", 'prometheus',
		"--config.file=$dir/prometheus.yml", "--storage.tsdb.path=$dir/tsdb",
		"--web.listen-address=127.0.0.1:$self->{port}",
		# no instant query looks back past what it is about
		'--query.lookback-delta=5s', '--log.level=warn');
	ok( wait_until(
			sub {
				my $seen = eval {
					$self->ask('session_manager_state_key_file_loaded == 1');
				};
				return $seen && @$seen == @nodes;
			},
			60),
		'Prometheus has scraped each server'
	) or diag(slurp_file("$dir/prometheus"));
	return $self;
}

# Start a program that does not outlive the test, however that ends.
sub run
{
	my ($self, $log, @command) = @_;
	push @{ $self->{running} },
	  IPC::Run::start([ 'setpriv', '--pdeathsig', 'KILL', @command ],
		'<', '/dev/null', '>', $log, '2>&1');
	return;
}

sub stop
{
	my ($self) = @_;
	$_->kill_kill(grace => 5) foreach @{ $self->{running} };
	$self->{running} = [];
	return;
}

# What Prometheus's API answers; dies with its complaint.
sub get
{
	my ($self, $path, %form) = @_;
	my $answer =
	  $self->{http}->post_form("http://127.0.0.1:$self->{port}$path", \%form);
	my $content = eval { decode_json($answer->{content}) }
	  or die "$path: $answer->{status} $answer->{content}";
	die "$path: $content->{error}\n" if $content->{status} ne 'success';
	return $content->{data};
}

# The result of an expression now.
sub ask
{
	my ($self, $expr) = @_;
	return $self->get('/api/v1/query', query => $expr)->{result};
}

# The result of an expression over a stretch of time.
sub ask_range
{
	my ($self, $expr, $from, $to) = @_;
	return $self->get(
		'/api/v1/query_range',
		query => $expr,
		start => $from,
		end => $to,
		step => max(0.5, ($to - $from) / 5000))->{result};
}

# Names of the alerts of an instance that have fired, or are firing, between
# two times, each with when it began.  Not firing: pending, too.
sub alerts
{
	my ($self, $instance, $from, $to, $state) = @_;
	$state //= 'firing';
	my %first;
	foreach my $series (
		@{
			$self->ask_range(
				qq(ALERTS{alertstate=~"$state",instance="$instance"}),
				$from, $to)
		})
	{
		my $name = $series->{metric}{alertname};
		my $at = $series->{values}[0][0];
		$first{$name} = $at if !$first{$name} || $at < $first{$name};
	}
	return \%first;
}

# Nothing fires any more, nor is about to.
sub quiet
{
	my ($self, $instance, $seconds) = @_;
	return wait_until(
		sub {
			!@{ $self->ask(qq(ALERTS{instance="$instance"})) };
		},
		$seconds);
}

# Make a fault, wait until its alerts fire, mend it, and wait until all is quiet.
# Returns how many seconds each alert took.
sub fault
{
	my ($self, $node, $name, %fault) = @_;
	my $instance = $node->name;
	my $wait = 60 + 3600 / $self->{factor};
	my @fires = @{ $fault{fires} };
	my %explained = (map({ $_ => 1 } @fires), %{ $fault{also} // {} });
	my $seen = {};

	ok($self->quiet($instance, $wait), "$name: nothing fires before it")
	  or diag(explain($self->ask(qq(ALERTS{instance="$instance"}))));
	my $start = time();
	my $state = $fault{make}->();
	ok( wait_until(
			sub {
				$fault{again}->($state) if $fault{again};
				$seen = $self->alerts($instance, $start, time());
				return !grep { !$seen->{$_} } @fires;
			},
			$wait),
		"$name: fires " . join(' and ', @fires)
	) or diag('fired: ' . join(' ', sort keys %$seen));
	$fault{check}->() if $fault{check};
	$fault{mend}->($state) if $fault{mend};
	ok($self->quiet($instance, $wait), "$name: mended, nothing fires")
	  or diag(explain($self->ask(qq(ALERTS{instance="$instance"}))));
	my $all = $self->alerts($instance, $start, time());
	is_deeply([ grep { !$explained{$_} } sort keys %$all ],
		[], "$name: and nothing else that is not explained");
	return { map { $_ => $seen->{$_} ? $seen->{$_} - $start : undef }
		  @fires };
}

# What goes wrong, by name, in order; each entry is for fault().  The clock's
# needs a function that sets it, as 016_clock.pl does; a server that stops, one
# that starts it again.
sub faults
{
	my ($node, $redis, %how) = @_;
	my $sql = sub { return $node->safe_psql('postgres', @_) };
	my $set = sub {
		my ($name, $value) = @_;
		$sql->(
			defined $value
			? "ALTER SYSTEM SET session_manager.$name = '$value'"
			: "ALTER SYSTEM RESET session_manager.$name");
		$sql->('SELECT pg_reload_conf()');
		return;
	};
	my $worker = sub {
		my ($kind) = @_;
		return $sql->(
			"SELECT pid FROM pg_stat_activity WHERE backend_type = 'session_manager $kind' AND coalesce(datname, 'postgres') = 'postgres'"
		);
	};
	# statements that fail, a number of times
	my $repeat = sub {
		my ($times, $statement, $settings) = @_;
		$sql->(
			($settings // '') . qq(
			DO \$\$
			BEGIN
				FOR i IN 1 .. $times LOOP
					BEGIN
						PERFORM $statement;
					EXCEPTION WHEN OTHERS THEN
						NULL;
					END;
				END LOOP;
			END
			\$\$));
		return;
	};
	my $bound = sub {
		my ($user) = @_;
		return split /\|/,
		  $sql->(
			"SELECT b.session_token, b.proof FROM session_create('$user') AS s, session_bind_device(s.session_token, '$key', session_device_challenge(s.session_token)) AS b"
		  );
	};
	my $keys = key_file($node);

	return (
		'a token is replayed' => {
			fires => ['SessionTokenReplayed'],
			make => sub {
				my $old = create_session($node, 'replayed');
				$sql->(
					"SET session_manager.rotation_grace = 0;
					SELECT count(*) FROM session_refresh('$old', rotate => true) AS r, session_get(r.session_token)"
				);
				$sql->(
					"SET session_manager.rotation_grace = 0; SELECT status FROM session_refresh('$old')"
				);
			},
		},
		'a bound session is used without its device' => {
			fires => ['SessionTokenStolen'],
			make => sub {
				my ($token) = $bound->('robbed');
				my (undef, $proof) = $bound->('thief');
				ok( wait_until(
						sub {
							$sql->(
								"SET session_manager.device_proof_lifetime = 1; SELECT count(*) FROM session_get('$token.$proof')"
							) eq '0';
						}),
					'it is refused');
			},
		},
		'a row is tampered with' => {
			fires => ['SessionDataCorrupt'],
			make => sub {
				my $token = create_session($node, 'tampered');
				$sql->(
					"UPDATE user_sessions SET sealed_data = set_byte(sealed_data, 40, get_byte(sealed_data, 40) # 1) WHERE user_id = 'tampered'"
				);
				$repeat->(1, "session_get('$token')");
			},
			mend => sub {
				$sql->(
					"DELETE FROM user_sessions WHERE user_id = 'tampered'");
			},
		},
		'somebody guesses tokens' => {
			fires => ['SessionTokenGuessing'],
			make => sub {
				$sql->(
					q(SELECT count(*) FROM generate_series(1, 60) AS i, session_get('sm1_' || translate(encode(sha256(i::text::bytea) || substr(sha256('x'), 1, 16), 'base64'), E'+/\n', '-_'), '198.51.100.7'))
				);
			},
		},
		'a client sends wrong tokens' => {
			fires => ['SessionTokensRefused'],
			make => sub {
				return
				  substr(create_session($node, 'mistaken'), 0, 60)
				  . 'AAAAAAAA';
			},
			again => sub {
				my ($token) = @_;
				$sql->(
					"SELECT count(*) FROM generate_series(1, 100) AS i, session_get('$token' || left(i::text, 0))"
				);
			},
		},
		"a constraint of the owner's refuses logins" => {
			fires => ['SessionLoginsFail'],
			make => sub {
				$sql->(
					"ALTER TABLE user_sessions ADD CONSTRAINT no_bob CHECK (user_id <> 'bob')"
				);
			},
			again => sub { $repeat->(20, "session_create('bob')") },
			mend => sub {
				$sql->('ALTER TABLE user_sessions DROP CONSTRAINT no_bob');
			},
		},
		'a user logs in again and again' => {
			fires => ['SessionLoginsDenied'],
			make => sub {
				$repeat->(
					200, "session_create('greedy')",
					'SET session_manager.on_limit = deny;');
			},
		},
		'others may read the key file' => {
			fires => ['SessionKeysMissing'],
			make => sub {
				chmod 0644, $keys or die "$keys: $!";
				$node->reload;
			},
			mend => sub {
				chmod 0600, $keys or die "$keys: $!";
				$node->reload;
			},
		},
		'a key is gone from the file' => {
			fires => ['SessionKeysMissing'],
			also => { SessionLoginsFail => 'no session can be sealed' },
			make => sub {
				my $content = slurp_file($keys);
				write_file($keys, '99:' . random_key() . "\n");
				$node->reload;
				return $content;
			},
			mend => sub {
				my ($content) = @_;
				write_file($keys, $content);
				$node->reload;
			},
		},
		'Redis is down' => {
			fires => ['SessionCacheDown'],
			make => sub { $redis->kill9 },
			mend => sub { $redis->start },
		},
		"the cache's worker hangs" => {
			fires => ['SessionOutboxStuck'],
			make => sub {
				my $token = create_session($node, 'ended');
				my $pid = $worker->('cache worker');
				kill 'STOP', $pid;
				$sql->("SELECT session_invalidate('$token')");
				return $pid;
			},
			mend => sub { kill 'CONT', $_[0] },
		},
		'Redis is nearly full' => {
			fires => ['SessionCacheMemoryShort'],
			also => { SessionCacheDown => 'it becomes full' },
			make => sub {
				my ($used) =
				  $redis->call('INFO', 'memory') =~ /^used_memory:(\d+)/m;
				$redis->call('CONFIG', 'SET', 'maxmemory', int($used * 1.07));
			},
			mend => sub { $redis->call('CONFIG', 'SET', 'maxmemory', 0) },
		},
		'Redis evicts' => {
			fires => ['SessionCacheMemoryShort'],
			make => sub {
				my ($used) =
				  $redis->call('INFO', 'memory') =~ /^used_memory:(\d+)/m;
				$redis->call('CONFIG', 'SET', 'maxmemory-policy',
					'allkeys-lru');
				$redis->call('CONFIG', 'SET', 'maxmemory', $used + 200_000);
				$redis->call('SET', "filler:$_", 'x' x 10_000) for 1 .. 40;
			},
			mend => sub {
				$redis->call('CONFIG', 'SET', 'maxmemory', 0);
				$redis->call('CONFIG', 'SET', 'maxmemory-policy',
					'noeviction');
			},
		},
		'the launcher hangs' => {
			fires => ['SessionSweepStuck'],
			make => sub {
				my $pid = $worker->('launcher');
				kill 'STOP', $pid;
				return $pid;
			},
			mend => sub { kill 'CONT', $_[0] },
		},
		"a foreign key of the owner's prevents the sweep" => {
			fires => ['SessionMaintenanceFails'],
			make => sub {
				$sql->(
					q(
					CREATE TABLE note (session_id uuid REFERENCES user_sessions);
					INSERT INTO note SELECT session_id FROM session_create('noted', ttl => '1 millisecond');)
				);
			},
			mend => sub { $sql->('DROP TABLE note') },
		},
		"a trigger of the owner's refuses what workers write" => {
			fires => [ 'SessionMaintenanceFails', 'SessionTokenReplayed' ],
			make => sub {
				my $used = create_session($node, 'used-stuck');
				my $old = create_session($node, 'found-stuck');
				$sql->(
					qq(
					SELECT count(*) FROM session_refresh('$old', rotate => true) AS r, session_get(r.session_token);
					CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \$\$BEGIN RAISE 'never'; END\$\$;
					CREATE TRIGGER refuse BEFORE UPDATE ON user_sessions FOR EACH ROW WHEN (OLD.user_id LIKE '%-stuck') EXECUTE FUNCTION refuse();
					SELECT pg_sleep(1.2);
					BEGIN READ ONLY;
					SELECT count(*) FROM session_get('$used');
					COMMIT;
					SET session_manager.rotation_grace = 0;
					SET session_replication_role = replica;
					BEGIN;
					SELECT status FROM session_refresh('$old');
					ROLLBACK;
					SELECT session_key_activate(session_key_generate());)
				);
			},
			check => sub {
				ok( wait_until(
						sub {
							$sql->(
								'SELECT findings_failed > 0 AND touches_failed > 0 AND resealing_failed > 0 FROM session_stats'
							) eq 't';
						}),
					'each step of the workers is refused');
				# Prometheus sees that re-sealing is not done
				sleep 2;
			},
			mend => sub {
				$sql->(
					"DROP FUNCTION refuse() CASCADE; DELETE FROM user_sessions WHERE user_id LIKE '%-stuck'"
				);
			},
		},
		"a view of the owner's keeps a partition" => {
			fires => ['SessionMaintenanceFails'],
			make => sub {
				$sql->(
					"INSERT INTO session_events (at, event) VALUES (now() - interval '10 days', 'created')"
				);
				ok( wait_until(
						sub {
							$sql->(
								'SELECT count(*) FROM session_events_default')
							  eq '0';
						}),
					'an old event is in a partition of its own');
				my $oldest = $sql->(
					"SELECT tableoid::regclass FROM session_events ORDER BY at LIMIT 1"
				);
				$sql->("CREATE VIEW watched AS SELECT * FROM $oldest");
				$set->('event_retention', '3d');
			},
			mend => sub {
				$sql->('DROP VIEW watched');
				$set->('event_retention');
			},
		},
		'more sessions are used than there are slots' => {
			fires => ['SessionTouchSlotsShort'],
			make => sub {
				$sql->(
					q(
					CREATE TABLE flood AS SELECT s.session_token FROM generate_series(1, 4000) AS i, session_create('flood' || i) AS s)
				);
			},
			again => sub {
				$sql->(
					'SELECT count(*) FROM flood AS f, session_get(f.session_token)'
				);
			},
			mend => sub { $sql->('DROP TABLE flood') },
		},
		'an attack in a transaction that rolls back' => {
			fires => [ 'SessionFindingsLost', 'SessionTokenReplayed' ],
			make => sub {
				$sql->(
					q(
					SET session_manager.rotation_grace = 0;
					CREATE TEMP TABLE replay AS SELECT c.session_token AS old, r.session_token AS new
					FROM generate_series(1, 40) AS i, session_create('many' || i) AS c, LATERAL session_refresh(c.session_token, rotate => true) AS r;
					SELECT count(*) FROM replay, session_get(replay.new);
					BEGIN;
					SELECT count(*) FROM replay, session_refresh(replay.old);
					ROLLBACK;)
				);
			},
		},
		'the database is not served' => {
			fires => [ 'SessionWorkersOff', 'SessionSweepStuck' ],
			make => sub { $set->('databases', 'another') },
			mend => sub { $set->('databases') },
		},
		'logins come from new devices' => {
			fires => ['SessionLoginsFromNewDevices'],
			make => sub {
				$sql->(
					q(
					SELECT count(*) FROM generate_series(1, 60) AS i, session_create('moved' || i, ip => '192.0.2.1', user_agent => 'Firefox');
					SELECT count(*) FROM generate_series(1, 60) AS i, session_create('moved' || i, ip => '203.0.113.9', user_agent => 'curl');)
				);
			},
		},
		'Redis is emptied again and again' => {
			fires => ['SessionCacheFlapping'],
			make => sub { },
			again => sub { $redis->call('FLUSHALL') },
		},
		$how{clock}
		? ( 'the clock jumps by two days' => {
				fires => ['SessionClockInDoubt'],
				make => sub { $how{clock}->(2 * 86400) },
				mend => sub { $how{clock}->(0) },
			})
		: (),
		$how{start}
		? ( 'the server is down' => {
				fires => ['SessionMetricsMissing'],
				make => sub { $node->stop },
				mend => sub { $how{start}->() },
			})
		: ());
}

sub panels
{
	return
	  @{ decode_json(slurp_file("$docs/grafana-dashboard.json"))->{panels} };
}

# What Grafana wants of a dashboard that it imports: the data source is a
# variable, and panels have places and numbers of their own.
sub check_dashboard
{
	my $dashboard = decode_json(slurp_file("$docs/grafana-dashboard.json"));
	my %variable =
	  map { $_->{name} => $_ } @{ $dashboard->{templating}{list} };
	my (%ids, %taken);

	cmp_ok($dashboard->{schemaVersion},
		'>=', 36, 'dashboard: a version of the schema');
	is($variable{datasource}{type},
		'datasource', 'dashboard: a variable is the data source');
	is($variable{$_}{datasource}{uid},
		'${datasource}', "dashboard: variable $_ is asked of it")
	  foreach 'instance', 'database';
	foreach my $panel (panels())
	{
		my $title = $panel->{title};
		my $grid = $panel->{gridPos};
		my @cells = map {
			my $y = $_;
			map { "$_,$y" } $grid->{x} .. $grid->{x} + $grid->{w} - 1
		} $grid->{y} .. $grid->{y} + $grid->{h} - 1;
		my @targets = @{ $panel->{targets} // [] };

		ok(!$ids{ $panel->{id} }++, "dashboard: $title: a number of its own");
		is(scalar(grep { $taken{$_}++ } @cells),
			0, "dashboard: $title: a place of its own");
		cmp_ok($grid->{x} + $grid->{w}, '<=', 24, "dashboard: $title: fits");
		next if $panel->{type} eq 'row';
		is_deeply(
			[
				grep { ($_->{datasource}{uid} // '') ne '${datasource}' }
				  $panel,
				@targets
			],
			[],
			"dashboard: $title: asks the data source that is chosen");
		my %refs = map { $_->{refId} => 1 } @targets;
		is(scalar(keys %refs),
			scalar(@targets), "dashboard: $title: each query has a letter");
	}
	return;
}

# Each query of the dashboard returns data over a stretch of time.  If it saw all
# faults, each has been more than zero at some time.
sub dashboard_shows
{
	my ($self, $instance, $from, $to, $all) = @_;
	my $queries = 0;
	foreach my $panel (grep { $_->{type} ne 'row' } panels())
	{
		foreach my $target (@{ $panel->{targets} })
		{
			my $name = "$panel->{title}, $target->{legendFormat}";
			my $most;
			my $expr = filled_in($target->{expr}, $instance);
			foreach my $series (@{ $self->ask_range($expr, $from, $to) })
			{
				$most = max(
					grep { defined } $most,
					map  { 0 + $_->[1] }
					grep { $_->[1] ne 'NaN' } @{ $series->{values} });
			}
			$queries++;
			ok(defined $most, "dashboard: $name: data") or next;
			cmp_ok($most, '>', 0, "dashboard: $name: more than zero")
			  if $all;
		}
	}
	cmp_ok($queries, '>', 50, "dashboard: $queries queries");
	return;
}

# A query with the variables replaced, as Grafana would.
sub filled_in
{
	my ($expr, $instance) = @_;
	my %value = (
		database => 'postgres',
		instance => $instance,
		__rate_interval => '10s');
	$expr =~ s/\$(\w+)/$value{$1} \/\/ die "no variable $1"/ge;
	return $expr;
}

# Settings of servers that are watched: what takes a minute takes seconds, and
# little is enough to be too much.
sub conf
{
	return <<'END';
fsync = off
session_manager.sweep_interval = 2s
session_manager.flush_interval = 2s
session_manager.touch_interval = 1s
session_manager.touch_slots = 1024
session_manager.event_partition = day
session_manager.max_sessions_per_user = 5
session_manager.guessing_threshold = 20
session_manager.redis_mode = strict
END
}

# The roles, for new_node() and the load.
sub prepare
{
	my ($node) = @_;
	$node->safe_psql(
		'postgres', q(
		CREATE ROLE monitoring LOGIN;
		SELECT session_grant('monitoring', 'monitor');
		CREATE ROLE webapp LOGIN;
		SELECT session_grant('webapp', 'app');));
	return;
}

# What an application does in a transaction of pgbench's: users come and go,
# tokens are replaced, some sessions are bound to a device, a few requests carry
# what works no more.
my $traffic = <<"END";
\\set user random(1, 200)
\\set percent random(1, 100)
SELECT session_token AS token FROM session_create('user' || :user, '{"cart": []}', '1 minute', '192.0.2.1', 'Firefox') \\gset
SELECT count(*) FROM session_get(:token, '192.0.2.1', 'Firefox');
SELECT count(*) FROM session_update(:token, '{"plan": "free"}');
SELECT coalesce(max(session_token), '') AS new FROM session_refresh(:token, true) \\gset
SELECT count(*) FROM session_get(:new, '192.0.2.1', 'Firefox');
SELECT count(*) FROM session_list('user' || :user);
\\if :percent <= 10
SELECT coalesce(max(session_token), '') AS new FROM session_elevate(:new, '{"amr": ["otp"]}') \\gset
SELECT count(*) FROM session_refresh(:new);
\\elif :percent <= 30
SELECT coalesce(max(session_token), '') AS new, coalesce(max(proof), '') AS proof
  FROM session_bind_device(:new, '$key', coalesce(session_device_challenge(:new), '')) \\gset
SELECT count(*) FROM session_get(:new || '.' || :proof);
SELECT count(*) FROM session_prove_device(:new, coalesce(session_device_challenge(:new), ''));
SELECT session_device_report(:new, true, 'quota_exceeded');
\\elif :percent <= 35
SELECT session_invalidate_all('user' || :user);
\\elif :percent <= 40
SELECT session_invalidate_all('user' || :user, reason => 'admin');
\\elif :percent <= 45
SELECT session_invalidate_all('user' || :user, reason => 'password');
\\elif :percent <= 50
SELECT session_token AS short FROM session_create('guest' || :user, ttl => '1 millisecond') \\gset
\\sleep 10 ms
SELECT count(*) FROM session_get(:short);
\\elif :percent <= 53
SELECT session_token AS short FROM session_create('guest' || :user, idle_timeout => '1 second') \\gset
\\sleep 1100 ms
SELECT count(*) FROM session_get(:short);
\\elif :percent <= 90
SELECT session_invalidate(:new);
SELECT count(*) FROM session_get(:new);
\\elif :percent <= 92
SELECT count(*) FROM session_get('nonsense');
\\elif :percent <= 94
SELECT count(*) FROM session_get('sm1_' || repeat('A', 64));
\\endif
END

# The same load on each of the nodes, and again when it has failed, until
# stop_load().
sub start_load
{
	my ($rate, @nodes) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	write_file("$dir/traffic.sql", $traffic, 0644);
	my @running = map {
		IPC::Run::start(
			[
				'bash',
				'-c',
				'while [ -e "$1/traffic.sql" ]; do '
				  . 'pgbench -n -M prepared -h "$2" -p "$3" -U webapp -f "$1/traffic.sql" -c 3 -R "$4" -T 5 postgres >"$1/$5" 2>&1 || sleep 0.5; done',
				'load',
				$dir,
				$_->host,
				$_->port,
				$rate,
				$_->name
			],
			'<',
			'/dev/null')
	} @nodes;
	return { dir => $dir, running => \@running };
}

sub stop_load
{
	my ($load) = @_;
	unlink "$load->{dir}/traffic.sql";
	$_->finish foreach @{ $load->{running} };
	return;
}

1;
