# The formula of a release, for a Homebrew tap. deploy/release.sh fills in version and checksums.
class Rekeyd < Formula
  desc "Rotates the API keys of ElevenLabs service accounts and publishes them in Vault"
  homepage "https://github.com/rekeyd/rekeyd"
  version "@VERSION@"
  license "Apache-2.0"

  on_macos do
    on_arm do
      url "https://github.com/rekeyd/rekeyd/releases/download/@TAG@/rekeyd_@VERSION@_darwin_arm64.tar.gz"
      sha256 "@SHA256_darwin_arm64@"
    end
    on_intel do
      url "https://github.com/rekeyd/rekeyd/releases/download/@TAG@/rekeyd_@VERSION@_darwin_amd64.tar.gz"
      sha256 "@SHA256_darwin_amd64@"
    end
  end

  on_linux do
    on_arm do
      url "https://github.com/rekeyd/rekeyd/releases/download/@TAG@/rekeyd_@VERSION@_linux_arm64.tar.gz"
      sha256 "@SHA256_linux_arm64@"
    end
    on_intel do
      url "https://github.com/rekeyd/rekeyd/releases/download/@TAG@/rekeyd_@VERSION@_linux_amd64.tar.gz"
      sha256 "@SHA256_linux_amd64@"
    end
  end

  def install
    bin.install "rekeyd"
    man1.install Dir["man/*.1"]
    generate_completions_from_executable(bin/"rekeyd", "completion")
  end

  test do
    assert_match "rekeyd v#{version}", shell_output("#{bin}/rekeyd version")
  end
end
