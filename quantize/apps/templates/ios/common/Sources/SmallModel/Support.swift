import Foundation

struct Failure: LocalizedError {
    let message: String
    var errorDescription: String? { message }
}

/// The file of the package's folder `model` that ends in `type`; it stays where it is, as a real file.
func modelFile(_ type: String) throws -> String {
    guard let folder = Bundle.module.url(forResource: "model", withExtension: nil),
          let name = try FileManager.default.contentsOfDirectory(atPath: folder.path).first(where: { $0.hasSuffix(type) })
    else { throw Failure(message: "no \(type) file in the package") }
    return folder.appendingPathComponent(name).path
}

/// A C text that free() takes, as a string.
func taken(_ text: UnsafeMutablePointer<CChar>) -> String {
    defer { free(text) }
    return String(cString: text)
}
