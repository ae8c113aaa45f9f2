# Histories of 16 processes that read, change and revoke sessions through the
# cache, redis_mode = strict, while things go wrong: a read that begins after a
# revocation, or a change, was acknowledged never finds what was before, and no
# revocation takes longer than 3 seconds to commit.  And the checker can tell:
# with a reader that leaves something out, it finds stale answers.
#
# SM_HISTORY_SECONDS is for how long each fault goes on.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use CacheHistory;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = $ENV{SM_HISTORY_SECONDS} // 2.5;
my $history = CacheHistory->new('cache_strict', 'strict');

sub holds
{
	my ($name, $fault) = @_;
	my $r = $history->run_enough($name, $seconds, $fault);

	is($r->{stale_cache} + $r->{stale_database}, 0, "$name: no stale answer")
	  or diag($r->{complaints});
	is($r->{wrongly_none}, 0, "$name: no live session denied");
	cmp_ok($r->{max_commit}, '<=', 3000,
		"$name: no change takes more than 3 s");
	return $r;
}

my $r = holds('nothing wrong', undef);
cmp_ok($r->{share}, '>', 0.3, 'nothing wrong: sessions come from the cache');
is($r->{errors} + $r->{failed_changes}, 0, 'nothing wrong: no error');

my @faults = CacheHistory->faults;
while (my ($name, $fault) = splice @faults, 0, 2)
{
	holds($name, $fault);
	if ($name =~ /maxmemory/)
	{
		my ($evicted) =
		  $history->{redis}->call('INFO') =~ /^evicted_keys:(\d+)/m;
		cmp_ok($evicted, '>', 100, "$name: $evicted keys were evicted");
	}
}
cmp_ok($history->{killed}, '>', 0, 'the worker was killed');

# What such a reader gets wrong is left to chance, so it is given several.
sub found_out
{
	my ($name, @run) = @_;
	my $stale = 0;
	for (1 .. 6)
	{
		my $r = $history->run(@run);
		note(CacheHistory::summary($name, $r));
		$stale = $r->{stale_cache};
		last if $stale > 0;
	}
	cmp_ok($stale, '>', 0, "$name is found out");
	return;
}

# A reader that takes the epoch from the value instead of the epoch's key.
my $no_epoch = CacheHistory::sabotaged(
	"is_string(reply->element[1]) && reply->element[1]->len == EPOCH_LEN)",
	"is_string(reply->element[0]) && reply->element[0]->len > PREFIX_LEN)",
	"epoch = reply->element[1]->str",
	"epoch = reply->element[0]->str + 1",
	"*fillable = false;",
	"*fillable = true;",
	"*fillable = !is_string(value) ||",
	"*fillable = true ||");
found_out(
	'a reader that ignores the epoch',
	5,
	sub {
		$history->tell('worker', 'hole');
		CacheHistory::pause(4.5, 4.5);
		$history->tell('worker', 'pass');
	},
	$no_epoch);

# A reader that is slow to fill, and one that does so without its lease too.
my @slow = (
	'fill(reader, &token, &lease,',
	"nanosleep(&(struct timespec){0, 40000000}, NULL),\n\t\t\tfill(reader, &token, &lease,"
);
my $evict = sub { $history->evict; CacheHistory::pause(0.08, 0.08); };
$r = $history->run($seconds, $evict, CacheHistory::sabotaged(@slow));
note(CacheHistory::summary('a slow reader', $r));
is($r->{stale_cache}, 0, 'a reader that is slow to fill does no harm');

found_out(
	'a reader that fills without its lease',
	2 * $seconds,
	$evict,
	CacheHistory::sabotaged(
		@slow,
		q("if redis.call('GET', KEYS[1]) ~= 'L' .. ARGV[1] then return 0 end\n"),
		'""'));

# A reader that fills although the row is being changed.
found_out(
	'a reader that ignores cacheable',
	2 * $seconds,
	sub {
		$history->tell('worker', 'delay 100');
		$history->evict;
		CacheHistory::pause(0.02, 0.02);
	},
	CacheHistory::sabotaged(
		'strcmp(PQgetvalue(result, 0, 1), "true") == 0',
		'true', 'strcmp(PQgetvalue(result, 0, 4), reader->installation) != 0',
		'false'));

$history->stop;
done_testing();
