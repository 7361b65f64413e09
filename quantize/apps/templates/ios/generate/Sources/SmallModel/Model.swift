import Core
import Foundation

/// The generator, run by llama.cpp; one thread at a time may use it.
public final class Model: @unchecked Sendable {
    private let model: OpaquePointer
    private static let room: Int32 = 512

    public init() throws {
        var reason = [CChar](repeating: 0, count: Int(Self.room))
        let file = try modelFile(".gguf")
        guard let opened = model_open(file, 0, &reason, Self.room) else {
            throw Failure(message: String(cString: reason))
        }
        model = opened
    }

    deinit { model_close(model) }

    /// Answer `text`, then again without showing it; returns the profile as JSON.
    public func run(_ text: String, repeats: Int, show: @escaping (String) -> Void) throws -> String {
        var reason = [CChar](repeating: 0, count: Int(Self.room))
        let listener = Listener(show: show)
        let profile = model_run(
            model, text, Int32(repeats), Unmanaged.passUnretained(listener).toOpaque(),
            { context, piece, size in
                guard let context, let piece else { return }
                Unmanaged<Listener>.fromOpaque(context).takeUnretainedValue().add(Data(bytes: piece, count: Int(size)))
            },
            &reason, Self.room)
        guard let profile else { throw Failure(message: String(cString: reason)) }
        return taken(profile)
    }
}

/// Collects pieces of the answer, which may end inside a character.
private final class Listener {
    private var bytes = Data()
    private let show: (String) -> Void

    init(show: @escaping (String) -> Void) { self.show = show }

    func add(_ piece: Data) {
        bytes.append(piece)
        show(String(decoding: bytes, as: UTF8.self))
    }
}
