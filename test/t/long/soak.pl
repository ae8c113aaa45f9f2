# Half an hour of mixed load.  Nothing grows that should not: memory of
# backends, launcher and workers, and the table of sessions.
#
# SM_SOAK_SECONDS sets the duration, SM_SOAK_RATE the transactions per second.
# Below ten minutes processes have not looked at all of shared memory yet, and
# only what they have of their own is compared.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../lib";
use List::Util qw(max min sum0);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;
use Time::HiRes qw(usleep time);

my $seconds = $ENV{SM_SOAK_SECONDS} // 1800;
my $rate = $ENV{SM_SOAK_RATE} // 60;
my $clients = 4;

# Sessions live for a tenth of the run on average: after two tenths there are
# as many as there will ever be.
my $longest = max(2, int($seconds / 5));

my $node = new_node(
	'soak',
	preload => 'session_manager',
	conf => q(
session_manager.sweep_interval = 2s
session_manager.flush_interval = 2s
session_manager.touch_interval = 1s
session_manager.rotation_grace = 0
session_manager.idle_timeout = 1h
session_manager.sweep_batch = 20
session_manager.sweep_pause = 50ms
autovacuum_naptime = 5s
synchronous_commit = off
));

my $script = $node->basedir . '/mixed.sql';
write_file(
	$script, qq(
\\set user random(1, 5000)
\\set ttl random(1, $longest)
\\set percent random(1, 100)
SELECT session_token AS token FROM session_create('user' || :user, jsonb_build_object('n', :user::int, 'pad', repeat('x', 200)), make_interval(secs => :ttl), '192.0.2.1', 'Firefox') \\gset
SELECT count(*) FROM session_get(:token, '192.0.2.2', 'Firefox');
SELECT count(*) FROM session_update(:token, jsonb_build_object('m', :percent::int));
SELECT count(*) FROM session_get(:token);
SELECT count(*) FROM session_get(:token || 'x');
SELECT coalesce(max(session_token), '') AS new FROM session_refresh(:token, true, make_interval(secs => :ttl)) \\gset
SELECT count(*) FROM session_get(:new);
SELECT count(*) FROM session_list('user' || :user);
\\if :percent <= 3
BEGIN;
SELECT count(*) FROM session_refresh(:token);
ROLLBACK;
\\elif :percent <= 30
SELECT session_invalidate(:new);
\\elif :percent <= 32
SELECT session_invalidate_all('user' || :user);
\\endif
), 0644);

sub value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

# Memory of a process in kB: all of it, and without what it shares.
sub memory
{
	my ($pid) = @_;
	open my $fh, '<', "/proc/$pid/status" or return;
	my %kb =
	  map { /^(VmRSS|RssAnon|RssFile|RssShmem):\s+(\d+)/ ? ($1, $2) : () }
	  <$fh>;
	close $fh;
	return unless $kb{VmRSS};
	return { rss => $kb{VmRSS}, own => $kb{VmRSS} - $kb{RssShmem} };
}

# The largest memory of each kind of process in a stretch of time
sub observe
{
	my ($postmaster, $stretch) = @_;
	my $end = time() + $stretch;
	my %most;
	while (time() < $end)
	{
		foreach (split /\n/, `ps -o pid=,args= --ppid $postmaster`)
		{
			my ($pid, $args) = /^\s*(\d+) (.*)/ or next;
			my $kind =
				$args =~ /session_manager (launcher|worker)/     ? $1
			  : $args =~ /postgres \[local\] (?!authentication)/ ? 'backend'
			  :                                                    next;
			my $kb = memory($pid) or next;
			$most{$kind}{$_} = max($most{$kind}{$_} // 0, $kb->{$_})
			  foreach keys %$kb;
			$most{$kind}{seen}++;
		}
		usleep(50_000);
	}
	return \%most;
}

# Sizes in kB of table (with TOAST) and of everything, live rows
sub sizes
{
	my ($table, $all, $rows) = split /\|/,
	  value(
		"SELECT pg_table_size('user_sessions') / 1024, pg_total_relation_size('user_sessions') / 1024, (SELECT count(*) FROM user_sessions)"
	  );
	return { table => $table, all => $all, rows => $rows };
}

my ($pid) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
my $start = time();
my @running;
{
	local $PostgreSQL::Test::Utils::timeout_default = $seconds + 300;
	@running = in_parallel(
		$node,
		{
			cmd => [
				'pgbench', '-n', '-M', 'prepared',
				'-f', $script, '-c', $clients,
				'-j', '2', '-R', $rate,
				'-T', $seconds, 'postgres'
			],
			out => $node->basedir . '/pgbench.log'
		});
}

# A fifth of the time to settle; then the first stretch, the last, and sizes
# in between.
my $stretch = max(3, int($seconds / 20));
my $rekey = 0;
wait_until(sub { time() - $start > $seconds / 5 }, $seconds);
my $first = observe($pid, $stretch);
my @sizes = (sizes());
while (time() - $start < $seconds - $stretch - 3)
{
	usleep(min(10, $seconds / 20) * 1_000_000);
	push @sizes, sizes();
	# once, another key: everything is resealed
	next if $rekey++ != 3;
	value("SELECT session_key_activate($_)")
	  foreach value('SELECT session_key_generate()');
}
my $last = observe($pid, $stretch);
my ($status) = finish_all(@running);
is($status, 0, 'the load ran to its end')
  or diag(slurp_file($node->basedir . '/pgbench.log'));
my ($tps) = slurp_file($node->basedir . '/pgbench.log') =~ /^tps = ([\d.]+)/m;

my $now = sizes();
value(
	"SET client_min_messages = error; CREATE TABLE live (LIKE user_sessions) WITH (fillfactor = 80);
	ALTER TABLE live ALTER sealed_data SET STORAGE EXTERNAL;
	INSERT INTO live SELECT * FROM user_sessions;");
my $live = value(
	"SELECT pg_table_size('live') / 1024 * $now->{rows} / greatest(1, (SELECT count(*) FROM live))"
);
my $largest = max(map { $_->{table} } @sizes);
my $most_rows = max(map { $_->{rows} } @sizes);

note
  sprintf('%d s, %.0f transactions (%.0f calls) a second, %d to %d sessions',
	$seconds, $tps, $tps * 8.3, min(map { $_->{rows} } @sizes), $most_rows);
foreach my $kind (qw(backend launcher worker))
{
	ok($first->{$kind} && $last->{$kind}, "$kind seen") or next;
	note sprintf(
		'%-8s RSS %d kB, then %d kB (%+.1f %%); own memory %d kB, then %d kB (%+.1f %%); %d samples',
		$kind,
		map({ $first->{$kind}{$_}, $last->{$kind}{$_},
				  100 * $last->{$kind}{$_} / $first->{$kind}{$_} - 100 }
			qw(rss own)),
		$last->{$kind}{seen});
	cmp_ok(
		$last->{$kind}{own},
		'<=',
		1.05 * $first->{$kind}{own},
		"$kind: its own memory does not grow");
	next if $seconds < 600;
	# a process has of shared memory what it has looked at, in the end all of it
	cmp_ok(
		$last->{$kind}{rss},
		'<=',
		1.05 * $first->{$kind}{rss},
		"$kind: nor does RSS");
}
note sprintf(
	'table %d kB at the end, %d kB at most; live %.0f kB: %.2f times; with indexes %d kB',
	$now->{table}, $largest, $live, $now->{table} / $live,
	$now->{all});
cmp_ok(
	$now->{table}, '<=',
	1.5 * $live,
	'the table is at most 1.5 times its live size');
note value(
	"SELECT string_agg(key || '=' || value, ' ') FROM session_stats AS s, jsonb_each_text(to_jsonb(s)) WHERE value <> '0'"
);
note value(
	"SELECT string_agg(key || ': ' || value, '; ') FROM session_info() WHERE key IN ('last_pass', 'resealing', 'event_partitions')"
);

ok( wait_until(
		sub {
			value(
				'SELECT count(*) FROM user_sessions WHERE expires_at < clock_timestamp() - interval \'10 s\''
			) == 0;
		}),
	'no dead session is left');
my $log = slurp_file($node->logfile);
unlike(
	$log,
	qr/deadlock|PANIC|FATAL|terminated by signal/,
	'and nothing went wrong');
$node->stop;

done_testing();
